"""Find the letter of a multiple-choice answer."""

import re
from collections.abc import Iterator, Sequence

from nemo_reasoning.answers.equality import answers_equal
from nemo_reasoning.answers.extraction import statements
from nemo_reasoning.answers.languages import ARTICLE, LABELS, MARKS, OPTION, RIGHT, SELECTED, SUPPOSED, WRONG
from nemo_reasoning.answers.text import digits, normalize

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_NEAR = 60  # characters before a letter that may name another subject

_BEFORE, _AFTER = r"[\s(\[{<（【「『“”„«‘*_\"'`$#]{0,12}", r"[)\]}>）】」』“”»’*_\"'`$]{0,12}"
_NOUN = rf"(?:(?:most likely|probably|clearly|definitely|indeed|{ARTICLE})\s+|l['’])*(?:{OPTION}\s*(?::\s*)?)?"
_LABEL = f"[A-Za-z{''.join(LABELS)}](?!{MARKS})"
_END = r"(?=$|[\s.,:;\-–—。，、：；।۔\\]|[^\x00-\x7f\w]|[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af])"
_LETTER = re.compile(rf"{_BEFORE}{_NOUN}({_BEFORE})({_LABEL})({_AFTER}){_END}(.*)", re.DOTALL | re.IGNORECASE)
_MARKED_LETTER = rf"(?-i:{_BEFORE}[A-Z]{_AFTER})"
_CHOSEN = re.compile(
    r"(?:\b(?:choose|select(?:ed)?|pick(?:ed)?|chose|go(?:ing)? with|I['’]d say|I would say|"
    r"(?:my|the) (?:final )?(?:choice|pick|selection) is|"
    r"elijo|escojo|selecciono|"
    r"je choisis|j['’]ai choisi|he elegido|"
    r"escolhi|ich w[äa]hle|escolho|"
    r"seleciono|выбираю|memilih|أختار|اخترت)\s+|(?<![不可未没沒别別误誤])[选選]\s*)"
    rf"({_NOUN}{_MARKED_LETTER})(?![\w'’])",
    re.IGNORECASE,
)
_CONCLUDED = re.compile(
    r"\b(?:it(?:['’]s|\s+is|\s+must\s+be|\s+has\s+to\s+be|\s+can\s+only\s+be)|(?:so|hence|thus|therefore),?(?:\s+it(?:['’]s|\s+is|\s+must\s+be))?)"
    rf"\s+({_NOUN}{_MARKED_LETTER})(?=\s*(?:[.;!]|$))",
    re.IGNORECASE | re.MULTILINE,
)
_BARE_LETTER = r"(?-i:(?<![\w'’])[(\[*_\"]{0,6}[A-Z][)\]*_\"]{0,6})"
_ANSWER = (
    r"(?:(?:the|my|la|die|a)\s+(?:final\s+)?(?:answer|choice|pick|respuesta|r[ée]ponse|antwort|resposta)"
    r"(?!\s+(?:to|if|only|when|that)\b)|答案|jawaban(?:nya)?|(?:ال)?[إا]جابة|(?:ال)?جواب|উত্তর|उत्तर)"
)
_SELECTED = re.compile(
    rf"(?:^|[.;!。；！۔।]\s)[\s*_#>(\[-]{{0,8}}{SELECTED}\s*(?:{OPTION})?[\s*_]{{0,4}}[:：][\s*_]{{0,4}}([^\n]{{1,200}})",
    re.IGNORECASE | re.MULTILINE,
)
_IT_IS = re.compile(
    rf"(?:\b(?={OPTION})|^\s*)({_NOUN}{_MARKED_LETTER})\s+it\s+is(?=\s*(?:[.!]|$))", re.IGNORECASE | re.MULTILINE
)
_NOT = r"(?:not|pas|nicht|no|não|non|не|bukan)\s+[(\[]?[A-Z](?!\w)"
_CLAUSE = re.compile(
    rf"[.!](?:\s+|$)|;\s*|[。；！۔।؛]|\s[-–—]\s|\n|,?\s+(?=(?:but\s+)?{_NOT})"
    r"|,?\s+(?=(?:because|since|rather\s+than|instead\s+of)\b)"
)
_DENIED = re.compile(rf"{WRONG}|\b(?:rather\s+than|instead\s+of|{_NOT})", re.IGNORECASE)
_DENIED_AT_ONCE = re.compile(rf"[\s,]*(?:(?:which|that|and|is|was|es|est|ist)\s+){{0,3}}{WRONG}", re.IGNORECASE)
_CALLED = re.compile(
    rf"({OPTION}\s*{_MARKED_LETTER}|{_BARE_LETTER})"
    rf"\s*+(?:(?:\b(?:is|es|est|ist|adalah|является|ni)\b|é|è|está|هو|هي|是|が|는|은|가|이)\s*+)?(?:{RIGHT}|{_ANSWER})"
    r"(?!\w*(?:\s+(?:answer|option|choice))?\s*(?:only|if|when)\b)",
    re.IGNORECASE,
)
_OTHER_SUBJECT = re.compile(
    r"\b(?:statement|assertion|reason|claim|step|part|case|figure|point|person|not|if|unless|whether|suppose|assuming|because|since|"
    r"though|although|while|(?-i:[A-Z])[)\]]?\s*(?:and|or|&|/))\s*$",
    re.IGNORECASE,
)
_SEVERAL = re.compile(
    r"[\s,]*(?:(?:and|or|y|o|et|ou|und|oder|e|и|или|और|या|dan|atau|ve|veya|và|hoặc|و|أو|یا)\s"
    r"|或者?|和|与|及|以及|、|と|または|와|과|또는|[/,&+])\s*(?:(?:maybe|perhaps|possibly|even)\s+)?(?:option|choice)?\s*[(\[]?[A-Z][)\]]?(?![\w'’])"
)
_REASON = re.compile(r"\s+(?:because|since|as|for|which|is|due|porque|car|weil|ya que|denn)\b", re.IGNORECASE)
_BECAUSE = re.compile(
    r"(?<!\s)[,;]?\s+(?:because|since|as|for|due|porque|car|weil|ya que|denn)\b.*", re.IGNORECASE | re.DOTALL
)
_TEXT_IS_RIGHT = re.compile(
    rf"^[^\S\n]*+(?=\S)([^\n.!?]{{1,200}}?)\s+(?:is|would be|must be)\s+{RIGHT}"
    r"(?:\s+(?:answer|option|choice)\b(?!\s+(?:only|if|when)\b)|\s*(?=[.!\n]|$))",
    re.IGNORECASE | re.MULTILINE,
)
_IS_RIGHT = re.compile(rf"\s+(?:(?:is|es|est|ist|é|è)\s+)?{RIGHT}$", re.IGNORECASE)
_ASCII = "[A-Za-z0-9'’]"
_LABELED = re.compile(r"(?<!\w)([A-Z])[)\]]")
_WHY = re.compile(r"(?:because|since)\b|因[为為]", re.IGNORECASE)
_SHORT = 400  # characters of an answer that is a choice and remarks on the others
_FIRST_FINAL = re.compile(r"The final answer is ([A-D])")
_TEXT = re.compile(r"\\(?:text(?:bf|it|rm)?|mathrm|mathbf|boxed|fbox)\s*\{([^{}]*)\}")


def first_final_letter(text: str) -> str | None:
    """Return what NVIDIA's tutorial takes for the answer: the letter of the first "The final answer is X".

    Source: tutorials/llm/reasoning/evaluation/evaluate_responses.py in NVIDIA/NeMo. It searches the whole
    response, its thinking included.
    """
    match = _FIRST_FINAL.search(text)
    return match[1] if match else None


def extract_choice(text: str, *, choices: Sequence[str]) -> str | None:
    """Return the letter that `text` answers with, or None if it names none, or several at once.

    The last statement that names a choice wins, by its letter or by its text. Without a statement, the
    last line counts if it is a choice and nothing else, and so does a text that begins with one.

    Args:
        text: What the model answered, without its thinking.
        choices: Texts of the choices in the order shown: the first is A.
    """
    text = digits(text)
    for _, phrase in sorted(_stated(text), reverse=True):
        if letter := _named(phrase, choices):
            return letter
    lines = [line for line in text.split("\n") if line.strip()]
    found = (_alone(lines[-1], choices) or _alone(lines[0], choices)) if lines else None
    if found is None:
        return _beside_denials(text, choices) if len(text) <= _SHORT else None
    recited = any(_alone(line, choices) not in (None, found) for line in dict.fromkeys(lines))
    return None if recited else found


def _stated(text: str) -> Iterator[tuple[int, str]]:
    yield from statements(text)
    for match in _SELECTED.finditer(text):
        chosen = match[1] if len(match[1]) < 4 else _CLAUSE.split(match[1], maxsplit=1)[0]
        if not SUPPOSED.search(match[1]) and len(set(_LABELED.findall(match[1]))) < 2:
            yield match.start(), chosen
    for pattern in (_CHOSEN, _CONCLUDED, _IT_IS):
        for match in pattern.finditer(text):
            if not _DENIED_AT_ONCE.match(text, match.end()):
                yield match.start(), match[1]
    for match in _CALLED.finditer(text):
        if not _OTHER_SUBJECT.search(text, max(0, match.start() - _NEAR), match.start()):
            yield match.start(), match[1]
    for match in _TEXT_IS_RIGHT.finditer(text):
        yield match.start(), match[1]


def _named(phrase: str, choices: Sequence[str]) -> str | None:
    """Return the letter a statement names."""
    bare = _TEXT.sub(r"\1", _TEXT.sub(r"\1", phrase)).strip()
    match = _LETTER.match(bare)
    if match is None:
        return _by_text(bare, choices)
    before, label, after, rest = match.groups()
    letter = LABELS.get(label, label)
    wrapped = bool(before.strip(" ") or after)
    upper = letter.upper()
    if upper not in LETTERS[: len(choices)] or (letter.islower() and rest.strip(" .") and not wrapped):
        return _by_text(bare, choices)
    if _SEVERAL.match(rest) or _DENIED.match(_CLAUSE.split(rest, maxsplit=1)[0].removeprefix(" is ").lstrip()):
        return None
    if rest.startswith(" ") and not wrapped and letter in "AIEOaeioYy" and not _REASON.match(rest):  # may be a word
        return upper if _same(rest, choices[LETTERS.index(upper)]) else _by_text(bare, choices)
    return upper


def _beside_denials(text: str, choices: Sequence[str]) -> str | None:
    """Return the letter of a text that begins with a choice, and then says only why others are wrong."""
    if re.search("[?？؟]", text) or SUPPOSED.search(text):
        return None
    first, *others = [clause.strip(" *_,") for clause in _CLAUSE.split(text) if clause.strip(" *_,")] or [""]
    first = _IS_RIGHT.sub("", first)
    found = _alone(first, choices) or _labeled(first, choices)
    denials = [clause for clause in others if _DENIED.search(clause)]
    if found is None or not denials:
        return None
    names = [
        rf"(?<!{_ASCII}){letter}(?!{_ASCII})|{re.escape(choice)}"
        for letter, choice in zip(LETTERS, choices, strict=False)
    ]
    own = re.compile(names.pop(LETTERS.index(found)))
    other = re.compile(rf"{'|'.join(names)}|\b(?:others?|rest)\b")
    agrees = all(map(other.search, denials)) and all(
        clause in denials or _alone(clause, choices) == found or _WHY.match(clause) for clause in others
    )
    return found if agrees and not any(map(own.search, denials)) else None


def _labeled(clause: str, choices: Sequence[str]) -> str | None:
    """Return the letter in front of a few words that are no other choice: they may be a translation."""
    match = re.fullmatch(r"[(\[（]?([A-Z])[)\]）.:：]\s*(\w[^.;:()]{0,40})", clause)
    if match is None or match[1] not in LETTERS[: len(choices)] or _DENIED.search(clause):
        return None
    said = _by_text(match[2], choices)
    return match[1] if said in (None, match[1]) and len(match[2].split()) <= 3 else None


def _by_text(phrase: str, choices: Sequence[str]) -> str | None:
    """Return the letter of the one choice whose text the phrase is, a reason behind it or not."""
    for said in dict.fromkeys((phrase, _BECAUSE.sub("", phrase, count=1))):
        found = [letter for letter, choice in zip(LETTERS, choices, strict=False) if _same(said, choice)]
        if found:
            return found[0] if len(found) == 1 else None
    return None


def _same(phrase: str, choice: str) -> bool:
    return bool(normalize(phrase)) and answers_equal(phrase.strip(" .:-*–—。"), choice.strip(" ."))


def _alone(line: str, choices: Sequence[str]) -> str | None:
    """Return the letter of a line that is a choice: its letter, its text, or both."""
    bare = _TEXT.sub(r"\1", line.strip())
    match = _LETTER.fullmatch(bare)
    if match is None or LABELS.get(match[2], match[2]).upper() not in LETTERS[: len(choices)]:
        return _by_text(line, choices)
    before, label, after, rest = match.groups()
    upper = LABELS.get(label, label).upper()
    marked = not label.islower() or before.strip() or after or line.strip() == label
    if marked and (not rest.strip(" .:*。") or (rest[:1] in ",;:" and _REASON.match(" " + rest[1:].lstrip()))):
        return upper
    stated = rest.lstrip(" .:)-*–—")
    if stated and _same(stated, choices[LETTERS.index(upper)]):
        return upper
    return _by_text(line, choices)
