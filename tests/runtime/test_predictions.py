"""What a client expects the answer to be reaches whoever guesses: faster where it is right, and never another text."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import grpc
import pytest
import pytest_asyncio

from nacre.client import AsyncClient, Generation
from nacre.drafting.prediction import PredictionProposer
from nacre.errors import InvalidArgument
from nacre.models import held_out_prompts
from nacre.session import SpeculationMode
from nacre.v1 import session_pb2 as pb
from nacre.v1 import verifier_pb2_grpc
from nacre.wire import messages
from tests.services import Services, address, services

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]

TOKENS = 64


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(slow_target: str) -> AsyncIterator[Services]:
    async with services(drafters=0, gateway=False, target=slow_target) as started:
        await started.start_drafter(method="prediction")
        await started.start_gateway()
        yield started


async def generated(client: AsyncClient, prediction: str | Sequence[int] = (), drafters: int = 1) -> Generation:
    vocabulary = await client.vocabulary()
    prompt = vocabulary.encode(held_out_prompts(1)[0], add_special_tokens=True)[:48]
    generation = await client.start(prompt, prediction=prediction, max_tokens=TOKENS, seed=3, drafters=drafters)
    return await generation.run()


def changed(tokens: Sequence[int]) -> list[int]:
    """The text with a word of it replaced, as an editor would."""
    return [*tokens[:20], 77, 78, 79, *tokens[24:]]


async def test_a_right_prediction_is_accepted_by_a_drafter_of_that_method(running: Services) -> None:
    async with AsyncClient(running.address) as client:
        plain = await generated(client)
        right = await generated(client, plain.tokens)
        nearly = await generated(client, changed(plain.tokens))
        wrong = await generated(client, plain.tokens[::-1])
        spelled = await generated(client, plain.text)
    for told in (right, nearly, wrong, spelled):
        assert told.tokens == plain.tokens
        assert told.text == plain.text
    assert plain.statistics.accepted_guesses == 0
    for told in (right, nearly):
        assert told.statistics.accepted_guesses > 0
        assert told.statistics.passes < plain.statistics.passes


async def test_a_client_that_drafts_for_itself_follows_its_own_prediction(running: Services) -> None:
    async with AsyncClient(running.address) as client:
        plain = await generated(client, drafters=0)
    async with AsyncClient(running.address, proposer=PredictionProposer()) as client:
        told = await generated(client, plain.tokens, drafters=0)
    assert told.tokens == plain.tokens
    assert told.statistics.accepted_guesses > 0


async def test_without_speculation_a_prediction_is_nobodys(running: Services) -> None:
    async with AsyncClient(running.address) as client:
        plain = await generated(client, drafters=0)
        off = await client.start(
            plain.request.prompt,
            prediction=plain.tokens,
            max_tokens=TOKENS,
            seed=3,
            speculation=SpeculationMode.OFF,
        )
        assert (await off.run()).tokens == plain.tokens
    assert off.statistics.verified_guesses == 0


async def test_the_verifier_tells_drafters_the_prediction_and_refuses_one_that_cannot_be(running: Services) -> None:
    async with (
        grpc.aio.insecure_channel(address(running.verifiers[0])) as channel,
        AsyncClient(running.address) as client,
    ):
        stub = verifier_pb2_grpc.VerifierStub(channel)
        owner, drafter = stub.Session(), stub.Session()
        opening = pb.Open(handshake=messages.handshake(), prompt=[1], max_tokens=500, prediction=[5, 6, 7])
        await owner.write(pb.SessionRequest(open=opening))
        opened = (await owner.read()).opened
        await drafter.write(
            pb.SessionRequest(join=pb.Join(handshake=messages.handshake(), ticket=opened.drafter_ticket))
        )
        assert list((await drafter.read()).opened.prediction) == [5, 6, 7]
        assert not opened.prediction
        drafter.cancel()
        owner.cancel()
        model = await client.model()
        vocabulary, context = model.vocab_size, model.max_positions
        for prediction, said in (
            ([0, vocabulary], f"prediction\\[1\\] is {vocabulary}; token ids of this model are 0 to {vocabulary - 1}"),
            ([1] * (context + 1), f"prediction has {context + 1} tokens; at most {context} are taken here: shorten it"),
        ):
            with pytest.raises(InvalidArgument, match=said):
                await generated(client, prediction)
