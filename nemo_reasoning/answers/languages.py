"""How answers are stated in English and the other most spoken languages."""

import re
from typing import NamedTuple


class _Language(NamedTuple):
    """Patterns of a language.

    Attributes:
        nouns: What is stated: an answer, a correct option.
        fillers: What may stand between a noun and the verb.
        verbs: What states it, besides a colon.
    """

    nouns: str
    fillers: str
    verbs: str


_LANGUAGES = (
    _Language(  # English
        r"\b(?:answers?|ans\.?|(?:correct|right|best) (?:option|choice|letter|one|statement|response|alternative))",
        r"[*_\"']|\bchoice\b|\boption\b|\bto\b[^.\n:]{0,300}?(?=\bis\b)|\btherefore\b|\bthus\b|\bhere\b",
        r"(?:is|are|was)\b(?:\s+(?:therefore|thus|then|clearly|simply|just|indeed|definitely))?"
        r"|(?:would|should|must|will|has to|can only)\s+be\b|\n",
    ),
    _Language(  # Spanish
        r"\b(?:respuestas?|soluci[óo]n|(?:opci[óo]n|alternativa|letra) (?:correcta|adecuada))",
        r"[*_\"']|\bcorrectas?\b|\bfinal\b|\bcorrecta final\b|\badecuada\b|\bentonces\b|\bpor (?:lo )?tanto\b",
        r"(?:es|son|ser[íi]a|debe ser)\b",
    ),
    _Language(  # French
        r"\b(?:r[ée]ponses?|solution|(?:bonne|option|choix|lettre) (?:option|r[ée]ponse|lettre|correcte?|juste))",
        r"[*_\"']|\bcorrecte?s?\b|\bfinale?\b|\bexacte?\b|\bjuste\b|\bdonc\b",
        r"(?:est|sont|serait|doit [êe]tre)\b(?:\s+donc)?",
    ),
    _Language(  # Portuguese
        r"\b(?:respostas?|solu[çc][ãa]o|(?:op[çc][ãa]o|alternativa|letra) (?:corret[ao]|cert[ao]))",
        r"[*_\"']|\bcorretas?\b|\bcertas?\b|\bfinal\b|\bportanto\b",
        r"(?:é|são|ser[áia]+|deve ser)(?!\w)",
    ),
    _Language(  # Italian
        r"\b(?:rispost[ae]|soluzione|(?:opzione|alternativa|scelta|lettera) (?:corretta|giusta|esatta))",
        r"[*_\"']|\bcorrett[ae]\b|\bgiust[ae]\b|\besatt[ae]\b|\bfinale\b|\bquindi\b",
        r"(?:è|sono|sarebbe)(?!\w)",
    ),
    _Language(  # German and Dutch
        r"\b(?:antwort(?:en)?|antwoord|l[öo]sung|richtig(?= ist)|"
        r"(?:richtige|korrekte|juiste) (?:option|m[öo]glichkeit|wahl|optie|keuze))",
        r"[*_\"']|\bdaher\b|\balso\b|\bsomit\b|\bdus\b",
        r"(?:ist|lautet|sind|w[äa]re|muss|is)\b(?:\s+(?:daher|also|somit|demnach))?",
    ),
    _Language(  # Russian
        r"\b(?:ответ\w{0,2}|(?:правильн|верн)\w+ (?:вариант|выбор)\w{0,2})",
        r"[*_\"']|\b(?:правильный|верный|окончательный)\b|\bбудет\b|\bявляется\b",
        r"[-–—]\s*(?:это\b)?|это\b",
    ),
    _Language(  # Chinese
        r"(?:答案|正[确確](?:的)?(?:[选選][项項]|[选選][择擇])|故[选選]|[应應][选選]|所以[选選]|因此[选選]|我[选選](?:[择擇])?|[选選][择擇])",
        r"[*_]|[应應][该該當当]?|就|[项項]|最[终終]",
        r"是|[为為]|[选選]",
    ),
    _Language(  # Japanese
        r"(?:答え|正解|解答|回答|正しい選択肢)",
        r"[*_]",
        r"は|が",
    ),
    _Language(  # Korean
        r"(?:정답|답변|답|올바른 선택지)",
        r"[*_]",
        r"은|는|이",
    ),
    _Language(  # Hindi and Marathi
        r"(?:उत्तर|जवाब|(?:सही|अंतिम) विकल्प|विकल्प)",
        r"[*_]|विकल्प",
        r"(?:है|हैं|आहे|होगा)(?=\s*[:：=])",
    ),
    _Language(  # Bengali
        r"(?:উত্তর(?:টি)?|জবাব|(?:সঠিক) (?:বিকল্প|অপশন)(?:টি)?)",
        r"[*_]",
        r"হলো|হল|হচ্ছে|হবে",
    ),
    _Language(  # Arabic, Urdu and Persian
        r"(?:(?:ال)?[إا]جابة|(?:ال)?جواب|الحل|(?:ال)?خيار الصحيح|(?:درست|صحیح) (?:آپشن|انتخاب)|پاسخ|گزینه)",
        r"[*_]|الصحيحة|الصحيح|النهائية|النهائي|درست|صحیح|حتمی|آپشن|نهایی",
        r"هي|هو|ہے(?=\s*[:：=])|است(?=\s*[:：=])",
    ),
    _Language(  # Indonesian and Malay
        r"\b(?:jawaban(?:nya)?|jawapan(?:nya)?|pilihan (?:yang )?(?:benar|tepat|betul))",
        r"[*_\"']|\byang\b|\bbenar\b|\btepat\b|\bbetul\b|\bakhir(?:nya)?\b",
        r"(?:adalah|ialah|yaitu)\b",
    ),
    _Language(  # Turkish
        r"(?:\b(?:cevap|cevab[ıi]|yan[ıi]t)\b|\bdoğru (?:seçenek|şık)\b)",
        r"[*_\"']",
        r"(?:şudur|şu)\b",
    ),
    _Language(  # Vietnamese
        r"(?:đáp án|câu trả lời|lựa chọn đúng)",
        r"[*_\"']|đúng|chính xác|cuối cùng",
        r"là\b",
    ),
    _Language(r"\bjibu", r"[*_]|sahihi|\bla\b|\bmwisho\b", r"ni\b"),  # Swahili
    _Language(r"(?:คำตอบ)", r"[*_]|ที่ถูกต้อง|สุดท้าย", r"คือ"),  # Thai
)
# Vowels that a letter carries: it begins a word, and labels nothing.
MARKS = "[\u064b-\u065f\u0900-\u0903\u093a-\u094f\u0981-\u0983\u09bc-\u09cd\u09d7]"
_COLON = r"(?:[:：=＝ঃ]|(?<=\s)[-–—](?=\s))"
# Without a verb, what follows has to look like an answer.
_LOOKS = (
    r"(?=[\s*_(\"'«\[${（【「]*+(?:[A-Z](?!\w|['’](?![dt][iıuü]r))|[-+−]?\$?\d|\\f?boxed|\\\(|"
    rf"[أبجدАБГДकखगघকখগঘ](?!\w|{MARKS})))"
)
STATED = re.compile(
    "|".join(
        rf"(?:{one.nouns})(?>(?:\s*(?:{one.fillers}))*)(?:\s*(?:(?:{one.verbs})\s*{_COLON}?|{_COLON})|\s*+{_LOOKS})"
        for one in _LANGUAGES
    ),
    re.IGNORECASE,
)
SENTENCE_END = re.compile(r"[.!?](?=\s|[*$\"')\]}]*\s*$)|[。！？؟۔।]|\n|$")
_TRAILING = re.compile(
    r"(?:है|हैं|होगा|आहे|হয়|হবে|ہے|ہوگا|هو|هي|です|である|だ|となります|になります|입니다|"
    r"이다|이에요|예요|dir|dır|dur|tir|است|选项|選項|项|項|選択肢)\s*\Z"
)
_CLOSING = "'’*_) \t\r\n\u00a0\u3000"
NEGATED = re.compile(
    r"^(?:not|n't|nicht|kein|no|ne|pas|não|non|не|bukan|tidak|không|不|ليس\w*|لیس|değil)(?!\w)"
    r"|नहीं|নয়|নহে|نہیں|では(?:ありません|ない)|아닙|아니|नाही|\b(?:değil|nicht)\b",
    re.IGNORECASE,
)
# "not A but B"
CORRECTED = re.compile(r"\s*not\s[^.;:\n]{1,200}?,?\s+but\s+(?:rather\s+)?(?!it\b|not\b)", re.IGNORECASE)
SUPPOSED = re.compile(
    r"\b(?:if|whether|suppose|assum\w+|unless|si|wenn|falls|se|если|如果|若)\b"
    r"|\b(?:might|may|could|would)\s+(?:say|think|argue|claim|believe|guess|conclude|assume|be\s+tempted)\b",
    re.IGNORECASE,
)
TALK = re.compile(
    r"(?:(?:also|indeed|thus|therefore|as follows|clearly|not)\s+)*(?:in)?(?:correct|right|wrong|helpful|clear|unique|"
    r"valid|above|below|as follows|given|shown|found|verified|confirmed|obvious|complete|final|here|there|unknown|"
    r"unclear|the following|"
    r"\[(?:the|your|insert|answer|letter|option|number|final|value)[\w ]*\]|\.\.\.|…|_+|\?)"
    r"(?:\s+(?:above|below|here|now))?",
    re.IGNORECASE,
)
# What names an option in front of its letter.
OPTION = (
    r"(?:option|choice|letter|answer|opci[óo]n|letra|lettre|choix|r[ée]ponse|buchstabe|antwort|m[öo]glichkeit|"
    r"op[çc][ãa]o|alternativa|opzione|lettera|risposta|вариант|буква|ответ|[选選][项項]|選択肢|विकल्प|অপশন|বিকল্প|آپشن|"
    r"(?:ال)?خيار|(?:ال)?حرف|pilihan|opsi|보기|선택지|şık|seçenek|lựa chọn|optie|گزینه|chaguo|ข้อ)"
)
ARTICLE = r"(?-i:the|la|le|les|el|los|der|die|das|o|a|os|as|il|het|de)"
RIGHT = (
    r"(?:(?:the |la |le |die |a |une? )?(?:one )?(?:most )?(?:correct|right|best|correcta|correto|correta|certa|"
    r"correcte|bonne|richtig(?:e)?|korrekt|corretta|giusta|правильн\w+|верн\w+|正[确確]|सही|সঠিক|درست|صحیح|صحيح|الصحيح|benar|tepat|"
    r"doğru|đúng|정답|맞|正解|正しい))"
)
# What stands in front of a colon and a chosen letter; only where it begins a sentence.
SELECTED = (
    r"(?:(?:my|the|our|final|best|so|thus|therefore|mi|la|el|ma|mon|le|meine?|die|minha|a|o|мой|मेरा|আমার|میرا|私の|내|나의|我的|最[终終]的?|"
    r"opci[óo]n|option|op[çc][ãa]o|вариант|विकल्प)(?!\w)[,\s]*+)*+"
    r"(?:selected|selection|chosen|choice|pick(?:ed)?|verdict|response|result|conclusion|decision|correct|marked|"
    r"seleccionad[ao]|selecci[óo]n|elecci[óo]n|elegid[ao]|choix|s[ée]lection(?:n[ée]e?)?|choisie?|auswahl|wahl|"
    r"ausgew[äa]hlt|gew[äa]hlt|entscheidung|escolha|escolhid[ao]|sele[çc][ãa]o|selecionad[ao]|выбор|выбран[оа]?|"
    r"चयन|चुना(?:\s+गया)?|চয়ন|পছন্দ|নির্বাচিত|নির্বাচন|(?:ال)?[إا]ختيار[يى]?|المختار|انتخاب|منتخب|pilihan(?:\s+saya)?|dipilih|"
    r"terpilih|[选選][择擇]|所[选選]|選択|선택|scelta|selezionat[ao]|keuze|seçim|seçilen)"
)
WRONG = (
    r"(?:\b(?:wrong|incorrect|false|not|isn['’]t|aren['’]t|incorrectas?|falsas?|incorrectes?|fausse?s?|faux|falsch|"
    r"errad[ao]s?|incorret[ao]s?|salah|sbagliat[ao]|yanlış|неверн\w*|неправильн\w*)\b"
    r"|गलत|ভুল|خطأ|خاطئ\w*|غلط|[错錯]|不[对對]|不正[确確]|誤り|間違|틀렸|틀린|오답)"
)
# Letters of other scripts that label the options A, B, C, D in their languages, as far as only one can be meant:
# the Cyrillic В may be the third label of Russian or the Latin B, but its С is no label there, and the Latin C.
LABELS = {
    **dict(zip("أبجد", "ABCD", strict=True)),
    **dict(zip("कखगघ", "ABCD", strict=True)),
    **dict(zip("কখগঘ", "ABCD", strict=True)),
    **{"А": "A", "Б": "B", "С": "C", "Г": "D", "甲": "A", "乙": "B", "丙": "C", "丁": "D"},
    **dict(zip("ⒶⒷⒸⒹⒺ", "ABCDE", strict=True)),
}


def without_verb(answer: str) -> str:
    """Return an answer without the verb that closes the sentence in languages that put it last."""
    found = _TRAILING.search(answer)
    before = answer[: found.start()] if found else ""
    last = before[-1:]
    glued = (last.isalnum() or last == "_") and not (last.isascii() and (last.isupper() or last.isdigit()))
    return before.rstrip(_CLOSING) if last and not glued else answer
