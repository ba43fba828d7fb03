"""One reader of switches: every spelling, nothing else, and contradictions by name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_reasoning.errors import SwitchError
from nemo_reasoning.reasoning.messages import Message, Mode
from nemo_reasoning.reasoning.switch import (
    COMMANDS,
    LINES,
    Switch,
    agreed_mode,
    find_switch,
    system_prompt,
    take_switches,
    template_switches,
    with_switch,
)

USER = Message("user", "Hi")
SPACES = st.text(" \t\u00a0\u3000", max_size=3)


@st.composite
def spelled_lines(draw: st.DrawFn) -> tuple[str, Mode]:
    """Draw a line that is a switch: any case, any spacing, perhaps with a period."""
    line, mode = draw(st.sampled_from(sorted(LINES.items())))
    words = [draw(st.sampled_from([word, word.upper(), word.title()])) for word in line.split()]
    gap = draw(st.sampled_from([" ", "  ", "\t", "\u00a0"]))
    return draw(SPACES) + gap.join(words) + draw(st.sampled_from(["", ".", " ."])) + draw(SPACES), mode


@given(spelled=spelled_lines(), before=st.lists(st.sampled_from(["Be brief.", "", "a b"])), carriage=st.booleans())
def test_a_line_of_a_system_turn_is_a_switch_in_any_spelling(
    spelled: tuple[str, Mode], before: list[str], carriage: bool
) -> None:
    line, mode = spelled
    text = ("\r\n" if carriage else "\n").join([*before, line, "Be kind."])
    rest, switches = find_switch(text, "system")
    assert [switch.mode for switch in switches] == [mode]
    assert "thinking" not in rest.casefold()
    assert find_switch(rest, "system") == (rest, ())


@given(
    command=st.sampled_from(sorted(COMMANDS)),
    text=st.sampled_from(["", "2 + 2?", "a\nb"]),
    first=st.booleans(),
    space=st.text(" \n\t", min_size=1, max_size=2),
    role=st.sampled_from(["system", "user"]),
)
def test_a_command_is_the_first_or_the_last_word(command: str, text: str, first: bool, space: str, role: str) -> None:
    whole = command + space + text if first else text + space + command
    assert find_switch(whole, role) == (text, (Switch(command, COMMANDS[command]),))


@pytest.mark.parametrize(
    ("role", "text"),
    [
        ("system", "detailed thinking on hard problems is your job."),
        ("system", "Use detailed thinking on hard problems."),
        ("system", "Always: detailed thinking on"),
        ("system", "detailed thinking on\u200bly"),
        ("system", "Say /think when you are lost."),
        ("system", "detailed thinking"),
        ("user", "detailed thinking on"),
        ("user", "what does /think do?"),
        ("user", "see docs/think"),
        ("user", "/thinking about it"),
        ("user", "/no_thinking"),
        ("assistant", "/think"),
        ("assistant", "detailed thinking on"),
        ("user", " I think so. "),
    ],
)
def test_what_only_mentions_thinking_is_text(role: str, text: str) -> None:
    assert find_switch(text, role) == (text, ())


def test_switches_at_both_ends_and_on_several_lines_are_all_found() -> None:
    rest, switches = find_switch("/think hi /no_think", "user")
    assert (rest, [switch.text for switch in switches]) == ("hi", ["/think", "/no_think"])
    rest, switches = find_switch("/no_think\nDetailed Thinking On.\nBe kind.", "system")
    assert (rest, {switch.mode for switch in switches}) == ("Be kind.", {"on", "off"})


@given(text=st.lists(st.sampled_from([*COMMANDS, *LINES, "\n", " ", "a", "."])).map("".join))
def test_finding_twice_finds_nothing_more(text: str) -> None:
    for role in ("system", "user"):
        rest, _ = find_switch(text, role)
        if role == "user":
            assert find_switch(rest, role) == (rest, ())


def test_switches_hold_from_the_system_turn_and_the_last_user_turn() -> None:
    dialogue = [
        Message("system", "detailed thinking on"),
        Message("user", "first /no_think"),
        Message("assistant", "x /think"),
        Message("user", "/think second"),
    ]
    plain, switches = take_switches(dialogue)
    assert [turn.content for turn in plain] == ["first", "x /think", "second"]
    assert [switch.text for switch in switches] == ["detailed thinking on", "/think"]


def test_template_arguments_are_switches() -> None:
    assert agreed_mode(template_switches({"enable_thinking": False, "other": 1})) == "off"
    assert agreed_mode(template_switches({"thinking": True, "enable_thinking": None})) == "on"
    assert template_switches({}) == ()
    with pytest.raises(SwitchError, match="enable_thinking='false'.*true or false"):
        template_switches({"enable_thinking": "false"})
    with pytest.raises(SwitchError, match="contradicts"):
        agreed_mode(template_switches({"enable_thinking": True, "thinking": False}))


@pytest.mark.parametrize(
    ("mode", "instructions", "expected"),
    [
        ("on", "", "detailed thinking on"),
        ("off", "", "detailed thinking off"),
        ("off", "Be brief.", "detailed thinking off\n\nBe brief."),
    ],
)
def test_the_switch_comes_before_the_instructions(mode: Mode, instructions: str, expected: str) -> None:
    assert system_prompt(mode, instructions) == expected


@pytest.mark.parametrize(
    ("messages", "system", "user"),
    [
        ((USER,), "detailed thinking on", "Hi"),
        ((Message("system", "Be brief."), USER), "detailed thinking on\n\nBe brief.", "Hi"),
        ((Message("system", "detailed thinking on\n\nBe brief."), USER), "detailed thinking on\n\nBe brief.", "Hi"),
        ((Message("system", "Be brief.\ndetailed thinking on"), USER), "detailed thinking on\n\nBe brief.", "Hi"),
        ((Message("system", "Detailed thinking on."), USER), "detailed thinking on", "Hi"),
        ((Message("user", "Hi /think"),), "detailed thinking on", "Hi"),
        ((Message("system", "/think"), USER), "detailed thinking on", "Hi"),
    ],
)
def test_one_switch_leads_the_system_turn(messages: tuple[Message, ...], system: str, user: str) -> None:
    assert with_switch(messages, "on") == (Message("system", system), Message("user", user))


@pytest.mark.parametrize(
    "messages",
    [
        (Message("system", "Be brief.\ndetailed thinking off"), USER),
        (Message("user", "Hi /no_think"),),
        (Message("system", "detailed thinking on"), Message("user", "/nothink Hi")),
    ],
)
def test_a_dialogue_that_asks_for_the_other_mode_is_refused(messages: tuple[Message, ...]) -> None:
    with pytest.raises(SwitchError, match="remove one of the two"):
        with_switch(messages, "on")
