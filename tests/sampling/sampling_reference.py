"""The sampler once more, as slow and as literal as the definitions: Python integers, fp32 scalars, sorted lists.

Nothing here is shared with `nacre.sampling` but the parameter classes.
"""

from __future__ import annotations

import math

import numpy as np

from nacre.sampling import Choice, RowContext

F = np.float32
LN_COEFFICIENTS = (
    7.0376836292e-2,
    -1.1514610310e-1,
    1.1676998740e-1,
    -1.2420140846e-1,
    1.4249322787e-1,
    -1.6668057665e-1,
    2.0000714765e-1,
    -2.4999993993e-1,
    3.3333331174e-1,
)
EXP_COEFFICIENTS = (
    1.9875691500e-4,
    1.3981999507e-3,
    8.3334519073e-3,
    4.1665795894e-2,
    1.6666665459e-1,
    5.0000001201e-1,
)


def philox(counter: tuple[int, int, int, int], key: tuple[int, int], rounds: int = 10) -> tuple[int, int, int, int]:
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(rounds):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & 0xFFFFFFFF, (p0 >> 32) ^ c3 ^ k1, p0 & 0xFFFFFFFF
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3


def ln_one_plus(x: F, e: F) -> F:
    y = F(LN_COEFFICIENTS[0])
    for c in LN_COEFFICIENTS[1:]:
        y = F(y * x) + F(c)
    z = x * x
    y = F(y * x) * z
    y = y + e * F(-2.12194440e-4)
    y = y - F(0.5) * z
    return F(F(x + y) + e * F(0.693359375))


def ln32(v: F) -> F:
    mantissa, exponent = math.frexp(float(v))
    if F(mantissa) < F(math.sqrt(0.5)):
        mantissa, exponent = 2 * mantissa, exponent - 1
    return ln_one_plus(F(mantissa) - F(1), F(exponent))


def race_exp(w: int) -> F:
    if w < 0x4AFB0CCC:
        return -ln_one_plus(-(F(w) * F(2.0**-32) + F(2.0**-33)), F(0))
    return -ln32(F(0xFFFFFFFF - w) * F(2.0**-32) + F(2.0**-33))


def noise(key: int, position: int, token: int) -> F:
    """S of one token id."""
    k = (key & 0xFFFFFFFF, key >> 32)
    p = (position & 0xFFFFFFFF, position >> 32)
    x0, x1, _, _ = philox((token >> 5, *p, 1 << 8), k)
    minimum = race_exp(x0) / F(32)
    if token & 31 == x1 & 31:
        return minimum
    return minimum + race_exp(philox((token >> 2, *p, 1 << 8 | 1), k)[token & 3])


def mass(d: F) -> int:
    """rint(e^d * 2^40)."""
    d = max(d, F(-32))
    n = np.rint(d * F(1.44269504088896341))
    x = F(d - n * F(0.693359375)) - n * F(-2.12194440e-4)
    y = F(EXP_COEFFICIENTS[0])
    for c in EXP_COEFFICIENTS[1:]:
        y = F(y * x) + F(c)
    y = F(F(y * F(x * x)) + x) + F(1)
    return int(np.rint(F(math.ldexp(float(y), int(n) + 40))))


def edited(logits: np.ndarray, row: RowContext, prompt: list[int], output: list[int]) -> list[F]:
    """Bias, penalties, allowed and banned ids."""
    p = row.params
    values = [F(v) for v in logits]
    for token, bias in p.logit_bias:
        values[token] = values[token] + F(bias)
    output = [*output, *row.ancestors]
    if p.repetition_penalty != 1.0:
        for token in {*prompt, *output}:
            v, r = values[token], F(p.repetition_penalty)
            values[token] = v / r if v > 0 else v * r
    for token in set(output):
        penalty = F(F(output.count(token)) * F(p.frequency_penalty)) + F(p.presence_penalty)
        values[token] = values[token] - penalty
    for token in range(len(values)):
        if (p.allowed_ids is not None and token not in p.allowed_ids) or token in p.banned_ids:
            values[token] = F(-np.inf)
    return values


def survivors(x: list[F], row: RowContext) -> list[int]:
    """Top-k, top-p, min-p: ids best first."""
    p = row.params
    order = sorted((t for t in range(len(x)) if x[t] > -np.inf), key=lambda t: (-x[t], t))
    if p.top_k > 0:
        order = order[: p.top_k]
    masses = {t: mass(x[t] - x[order[0]]) for t in order}
    if p.top_p < 1.0:
        share = math.ceil(p.top_p * sum(masses.values()))
        kept, total = [], 0
        for t in order:
            if total >= share:
                break
            kept.append(t)
            total += masses[t]
        order = kept
    return [t for t in order if masses[t] >= p.min_p * 2**40]


def final_scores(logits: np.ndarray, row: RowContext, prompt: list[int], output: list[int]) -> dict[int, F]:
    """The perturbed score of every id that may be chosen; at temperature 0 the processed logit."""
    values = edited(logits, row, prompt, output)
    if row.params.temperature < 1e-5:
        return {t: v for t, v in enumerate(values) if v > -np.inf}
    inverse = F(1.0 / row.params.temperature)
    x = [v * inverse for v in values]
    return {t: x[t] - ln32(noise(row.key, row.position, t)) for t in survivors(x, row)}


def probabilities(logits: np.ndarray, row: RowContext, prompt: list[int], output: list[int]) -> np.ndarray:
    """The distribution that the sampler must draw from, fp64, by libm's exponential."""
    x = [v * F(1.0 / row.params.temperature) for v in edited(logits, row, prompt, output)]
    kept = survivors(x, row)
    p = np.zeros(len(x))
    p[kept] = np.exp(np.array([x[t] for t in kept], dtype=np.float64) - float(max(x)))
    return p / p.sum()


def logprobs(logits: np.ndarray) -> list[F]:
    top = max(F(v) for v in logits)
    normalizer = ln32(F(sum(mass(F(v) - top) for v in logits)) * F(2.0**-40))
    return [F(F(v) - top) - normalizer for v in logits]


def choose(logits: np.ndarray, row: RowContext, prompt: list[int], output: list[int]) -> Choice:
    scores = final_scores(logits, row, prompt, output)
    token = min(scores, key=lambda t: (-scores[t], t))
    if row.top_logprobs < 0:
        return Choice(token)
    values = logprobs(logits)
    order = sorted((t for t in range(len(values)) if logits[t] > -np.inf), key=lambda t: (-values[t], t))
    return Choice(token, float(values[token]), tuple((t, float(values[t])) for t in order[: row.top_logprobs]))
