"""A guess is worth its marginal time at the going rate: our own rule, for chains and trees alike.

With X the tokens per second of the session, a second spent must bring X tokens. Maximising tokens / seconds is the same
as maximising tokens - X · seconds once X is the best rate (fractional programming, Dinkelbach 1967), and X settles
there by itself, since a better choice raises it. Hence two conditions, with path(v) the chance that v comes true:

    send      the n best nodes that maximise  Σ path(v) - X · V(n + 1)
    go on     if a draft step brings  Σ over what it adds of  max(0, path - X · V')  ≥  X · d

V' is what one more row adds to the pass, d what the step takes; a node joins a step if what it brings exceeds X times
what it adds to d. In a chain of equal odds a, the second reads a^(k+1) ≥ (d + V') · X: the exact
rule for when to stop. The round trip and the pass itself are paid once and enter through X alone: the slower the
link, the lower X, the larger the trees.

What a step will add is not known before it is drafted. Survivals by rank are averaged over what the drafter offered so
far, and a node's children are expected to look like that. Survivals are calibrated first (`Calibration`): guesses that
were drafted but not sent teach as well, because the committed tokens say whether they would have been right.

A session for which no guess pays stops guessing; every `probe_every` rounds it drafts one step and compares, which
costs d and no row.
"""

from __future__ import annotations

from nacre.pacing.calibration import Calibration
from nacre.pacing.dials import whole
from nacre.pacing.expected import expected_tokens
from nacre.pacing.policy import MOST_STEPS, Costs, Outcome, PolicyTraits
from nacre.pacing.round_tree import TIP, RoundTree

#: Survival by rank assumed before the drafter has offered anything, and what that weighs in offers.
_PRIOR = (0.7, 0.1, 0.05, 0.03)
_PRIOR_WEIGHT = 3.0
_PROFILE_KEEP = 1.0 - 1.0 / 100.0
_SPEED_KEEP = 0.95


class OursPolicy:
    """Sends every guess that is worth its time.

    `children` rivals per node are asked for, `batch` nodes extended per draft step at most, `steps` steps taken at
    most. `calibrate=False` takes the drafter's survivals as they are; `strength` and `memory` are those of
    `Calibration`, with more weight on the claim: a session is short, and a fitted model's claims are good.
    `probe_every` rounds without a guess are followed by a draft step that only compares.
    """

    def __init__(
        self,
        *,
        children: int = 4,
        batch: int = 16,
        steps: int = 64,
        calibrate: bool = True,
        strength: float = 20.0,
        memory: float = 400.0,
        probe_every: int = 16,
    ) -> None:
        self.traits = PolicyTraits("ours", "tree", children=whole("children", children, 1, 16))
        self._batch = whole("batch", batch, 1, 256)
        self._most_steps = whole("steps", steps, 1, MOST_STEPS)
        self._calibrate = calibrate
        self.calibration = Calibration(strength=strength, memory=memory)
        self._probe_every = whole("probe_every", probe_every, 1, 1_000_000)
        self._profile = [_PRIOR_WEIGHT * (_PRIOR[rank] if rank < len(_PRIOR) else 0.0) for rank in range(children)]
        self._offers = _PRIOR_WEIGHT
        self._tokens = self._seconds = 0.0
        self._idle_rounds = 0
        self._costs: Costs | None = None
        self._rate = 0.0
        self._paths: list[float] = []
        self._steps = 0

    def begin(self, costs: Costs) -> None:
        self._costs = costs
        self._rate = self._going_rate(costs)
        self._paths = []
        self._steps = 0

    def next(self, tree: RoundTree) -> list[int]:
        costs = self._during_a_round()
        self._read(tree)
        if self._steps >= self._most_steps or costs.most_nodes == 0:
            return []
        probing = self._idle_rounds >= self._probe_every and not tree.extended(TIP)
        row_worth = self._rate * costs.node_s(min(self._best_count(), costs.most_nodes - 1))
        gain = 0.0
        batch: list[int] = []
        for path, index in self._open(tree):
            own = self._expected_gain(path, row_worth)
            if batch:
                own -= self._rate * costs.draft_node_s
            if len(batch) == self._batch or own <= 0.0:
                break
            gain += own
            batch.append(index)
        if gain < self._rate * costs.draft_s or not batch:
            batch = [TIP] if probing and costs.most_depth > 0 else []
        self._steps += bool(batch)
        return batch

    def chosen(self, tree: RoundTree) -> list[int]:
        self._read(tree)
        return self._ranked()[: self._best_count()]

    def learned(self, outcome: Outcome) -> None:
        self._tokens = self._tokens * _SPEED_KEEP + len(outcome.tokens)
        self._seconds = self._seconds * _SPEED_KEEP + max(0.0, outcome.seconds)
        self._idle_rounds = 0 if len(outcome.tree) else self._idle_rounds + 1
        for node, right in outcome.tree.judged(outcome.tokens):
            self.calibration.observe(node.rank, node.survival, right)

    def _going_rate(self, costs: Costs) -> float:
        """X: as measured by the loop, else by the rounds so far, else that of the best chain at prior odds."""
        if costs.throughput > 0:
            return costs.throughput
        if self._seconds > 0:
            return self._tokens / self._seconds
        lengths = range(min(costs.most_nodes, costs.most_depth, self._most_steps) + 1)
        return max(expected_tokens(_PRIOR[0], length) / costs.round_s(length, length) for length in lengths)

    def _during_a_round(self) -> Costs:
        assert self._costs is not None, "a round begins with begin()"
        return self._costs

    def _read(self, tree: RoundTree) -> None:
        """Brings the path survivals up to date, and the profile of what is offered below a node."""
        first = len(self._paths)
        if first == len(tree):
            return
        for node in tree.nodes[first:]:
            survival = min(1.0, max(0.0, node.survival))
            if self._calibrate:
                survival = self.calibration.survival(node.rank, survival)
            if node.rank == 0:
                self._offers = self._offers * _PROFILE_KEEP + 1.0
                self._profile = [value * _PROFILE_KEEP for value in self._profile]
            if node.rank < len(self._profile):
                self._profile[node.rank] += survival
            self._paths.append(survival * (1.0 if node.parent == TIP else self._paths[node.parent]))

    def _expected_gain(self, path: float, row_worth: float) -> float:
        """What extending a node of this path survival should bring beyond the rows its children take."""
        return sum(max(0.0, path * value / self._offers - row_worth) for value in self._profile)

    def _open(self, tree: RoundTree) -> list[tuple[float, int]]:
        """(path survival, node) of all that may be extended, best first."""
        costs = self._during_a_round()
        if not tree.extended(TIP):
            return [(1.0, TIP)] if costs.most_depth > 0 else []
        deepest = costs.most_depth
        found = [
            (self._paths[node.index], node.index)
            for node in tree.nodes
            if node.depth < deepest and not tree.extended(node.index)
        ]
        return sorted(found, key=lambda pair: (-pair[0], pair[1]))

    def _ranked(self) -> list[int]:
        return sorted(range(len(self._paths)), key=lambda index: (-self._paths[index], index))

    def _best_count(self) -> int:
        """How many of the best nodes to send: the n that maximises Σ path - X · V(n + 1)."""
        costs = self._during_a_round()
        best, most = 0, -self._rate * costs.verify_s(1)
        total = 0.0
        for count, path in enumerate(sorted(self._paths, reverse=True)[: costs.most_nodes], start=1):
            total += path
            worth = total - self._rate * costs.verify_s(count + 1)
            if worth > most:
                best, most = count, worth
        return best
