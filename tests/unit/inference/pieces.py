"""A tokenizer of a few pieces that cut tags in every way, and a model that writes what it is told to."""

import re
from collections.abc import Sequence

import torch

from nemo_reasoning.inference.request import Completion, Delta, Event, GenerationRequest
from nemo_reasoning.inference.sequence import TokenSequence
from nemo_reasoning.inference.thinking_budget import TokenDecision, forced_tokens
from nemo_reasoning.inference.tokenizer import Prompt
from nemo_reasoning.reasoning.messages import Message, Mode

END = 0
PIECES = [
    *("", "<", "/", "think", ">", ">\n", "</", "</think", "</think>", "<think>", ".</", "<th", "ink>", ">\n\n"),
    *("a", "b ", " ", "\n", "Wait", "t", "h", "i", "n", "k", "<think>\n", "x</think>y", "42", "."),
]


class PieceTokenizer:
    """Stands in for `ChatTokenizer`."""

    stop_ids = frozenset([END])

    def __init__(self) -> None:
        self.forced_tokens = forced_tokens(self.encode, self.decode)

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(PIECES[token] for token in tokens)

    def encode(self, text: str) -> list[int]:
        tokens = []
        while text:
            piece = max((piece for piece in PIECES if piece and text.startswith(piece)), key=len)
            tokens.append(PIECES.index(piece))
            text = text[len(piece) :]
        return tokens


TOKENIZER = PieceTokenizer()


def request(
    *, mode: Mode = "on", limit: int = 60, budget: int | None = None, least: int = 0, stop: tuple[str, ...] = ()
) -> GenerationRequest:
    return GenerationRequest(
        messages=(Message("user", "x"),),
        mode=mode,
        max_new_tokens=limit,
        thinking_budget=budget,
        min_thinking=least,
        stop=stop,
        logprobs=0,
    )


def write(
    asked: GenerationRequest, wishes: Sequence[int], *, thinking: bool = False
) -> tuple[Completion, list[Delta], list[int]]:
    """Let a model wish for one token after the other, the same again at the end; return also its deltas and tokens."""
    events: list[Event] = []
    sequence = TokenSequence(
        asked, Prompt([1], "<think>" if thinking else ""), tokenizer=TOKENIZER, report=events.append
    )
    step = 0
    done = False
    while not done:
        wish = wishes[min(step, len(wishes) - 1)]
        logits = -((torch.arange(len(PIECES)) - wish) % len(PIECES)).float()
        step += not (sequence.forced)
        done = sequence.advance(logits, wish)
    completion = events.pop()
    assert isinstance(completion, Completion)
    return completion, [event for event in events if isinstance(event, Delta)], list(sequence.tokens)


def thinking_tokens(tokens: Sequence[int], *, thinking: bool = False) -> int:
    """Count the tokens whose first character stands in the block."""
    text = TOKENIZER.decode(tokens)
    block = re.match(r"(?s)()(.*?)(?:</think>|\Z)" if thinking else r"(?s)\s*(<think>)(.*?)(?:</think>|\Z)", text)
    starts = [len(TOKENIZER.decode(tokens[:number])) for number in range(len(tokens))]
    closed = text.startswith("</think>", block.end(2)) if block else False
    return sum(block.start(2) <= start < block.end(2) + (not closed) for start in starts) if block else 0


def write_offered(asked: GenerationRequest, wishes: Sequence[int], *, thinking: bool = False) -> Completion:
    """Write the same with tokens offered one by one, the next one where one is refused or taken back."""
    events: list[Event] = []
    prompt = Prompt([1], "<think>" if thinking else "")
    sequence = TokenSequence(asked, prompt, tokenizer=TOKENIZER, report=events.append)
    step, undecided = 0, 0
    while not sequence.done:
        if sequence.forced:
            sequence.write_forced()
            continue
        wish = wishes[min(step, len(wishes) - 1)]
        step += 1
        if sequence._budget.undecided:
            undecided = wish
        while (decision := sequence.offer(wish, None)) in (TokenDecision.refuse, TokenDecision.retract):
            wish = undecided if decision is TokenDecision.retract else wish
            while wish in sequence.banned:
                wish = (wish + 1) % len(PIECES)
    completion = events[-1]
    assert isinstance(completion, Completion)
    return completion
