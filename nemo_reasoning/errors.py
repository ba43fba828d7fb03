"""Exceptions of the package: each message carries the offending value and the remedy."""

import re

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class NemoReasoningError(Exception):
    """Root of every error this package raises on purpose."""


class ConfigError(NemoReasoningError):
    """A setting is unknown, of the wrong type, or at odds with another one."""


class DataError(NemoReasoningError):
    """A data set cannot be read, is empty, or holds no usable row."""


class RowError(DataError):
    """One row cannot be used; callers count it and put it in quarantine."""


class SwitchError(NemoReasoningError):
    """Two thinking switches contradict each other, or one is neither on nor off."""


class TemplateError(DataError):
    """A chat template is missing, or does not mark the assistant's tokens."""


class BackendError(NemoReasoningError):
    """The machine, or the installed NeMo stack, cannot run what was asked."""


class MissingPackageError(BackendError):
    """A package that what was asked for needs is not installed."""


class VersionError(BackendError):
    """NeMo or Megatron-Core is installed in a version this package does not support."""


class ModelSourceError(NemoReasoningError):
    """A base model cannot be found, is gated, or is not a Llama architecture."""


class StorageError(NemoReasoningError):
    """A file cannot be written or read, or there is no room for it."""


class CheckpointError(NemoReasoningError):
    """A checkpoint is missing, incomplete, or belongs to another run."""


class TrainingError(NemoReasoningError):
    """A training that was going cannot go on."""


class ExportError(NemoReasoningError):
    """A checkpoint cannot be written in the requested format."""


class VerificationError(ExportError):
    """An exported artifact does not compute what the trained model computes."""


class EngineError(NemoReasoningError):
    """An inference engine cannot start or cannot serve a request."""


class ContextLengthError(EngineError):
    """Prompt and completion together exceed the model's context.

    Attributes:
        prompt_tokens: Tokens of the prompt.
        max_new_tokens: Tokens asked for.
        context: Most tokens of both.
    """

    def __init__(self, *, prompt_tokens: int, max_new_tokens: int, context: int) -> None:
        """Take the numbers of tokens."""
        self.prompt_tokens, self.max_new_tokens, self.context = prompt_tokens, max_new_tokens, context
        left = context - prompt_tokens
        remedy = f"ask for at most {left} new tokens" if left > 0 else "shorten the prompt"
        super().__init__(
            f"this model's maximum context length is {context} tokens, but {prompt_tokens} of the prompt and "
            f"{max_new_tokens} new ones were asked for; {remedy}"
        )


class GenerationError(EngineError):
    """A request that an engine took has failed."""


class EngineClosedError(EngineError):
    """An engine was closed before a request's end."""


class RequestError(NemoReasoningError):
    """A client asks the service for something it cannot have.

    Attributes:
        status: Of HTTP.
        code: For programs.
        param: The field that is to blame, if one is.
    """

    def __init__(self, message: str, *, status: int = 400, code: str = "invalid_request", param: str | None = None):
        """Take the message for people and what programs read."""
        super().__init__(message)
        self.status, self.code, self.param = status, code, param


def harmless(text: str) -> str:
    """Return a text whose control characters are shown, and not obeyed by the terminal."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def is_failure(error: BaseException) -> bool:
    """Whether something failed; torch's `CheckpointException` did, though it is no `Exception`, and an exit did not."""
    return isinstance(error, Exception) or type(error).__name__ == "CheckpointException"
