"""An engine that recites: evaluation is tested against completions whose verdict is known."""

from collections.abc import Callable

from nemo_reasoning.inference.engine import Engine, Generation, Report
from nemo_reasoning.inference.request import Completion, GenerationRequest
from nemo_reasoning.reasoning.messages import Mode
from nemo_reasoning.reasoning.tags import split_thinking

Script = Callable[[str, Mode], str]


class ScriptedEngine(Engine):
    """Writes what its script says; one token is one character, as far as the limit allows."""

    def __init__(self, script: Script) -> None:
        """Take the script, and remember what is asked."""
        self.script = script
        self.asked: list[GenerationRequest] = []

    def submit(self, request: GenerationRequest, report: Report) -> Generation:
        """Answer by the script, at once."""
        self.asked.append(request)
        report(self._recite(request))
        return Generation()

    def max_new_tokens_for(self, request: GenerationRequest) -> int:
        """Return what the request asks for: the context has no end."""
        return request.max_new_tokens

    def close(self) -> None:
        """Hold nothing."""

    def _recite(self, request: GenerationRequest) -> Completion:
        whole = self.script(request.messages[-1].content, request.mode)
        text = whole[: request.max_new_tokens]
        split = split_thinking(text, request.mode, finished=text == whole)
        return Completion(
            text=text,
            reasoning=split.reasoning,
            answer=split.answer,
            well_formed=split.well_formed,
            prompt_tokens=1,
            completion_tokens=len(text),
            reasoning_tokens=len(split.reasoning),
            finish_reason="stop" if text == whole else "length",
        )
