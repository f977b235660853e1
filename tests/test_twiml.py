from xml.etree import ElementTree as ET

import pytest

from voice_bridge.bridge.telephony import twiml
from voice_bridge.bridge.telephony.twiml import Failure

WSS = "wss://a.example/twilio/stream"
SORRY = Failure("Sorry, please call again.", "+31201234567")
# XML's own characters, a line break, an emoji.
AWKWARD = "\"Tom\" & 'Jo' <b>\n]]> Zoë 🎉"
# What XML cannot hold at all, not even escaped: control characters and half an emoji.
NOT_XML = "\x00\x0b\x1b\ufffe\ud83c"


def verbs(document: str) -> list[ET.Element]:
    root = ET.fromstring(document)
    assert root.tag == "Response"
    return list(root)


def outline(document: str) -> list[tuple[str, str | None]]:
    return [(verb.tag, verb.text) for verb in verbs(document)]


def connect(
    parameters: dict[str, str] | None = None, status_callback: str | None = None, action: str | None = None
) -> list[ET.Element]:
    document = twiml.stream(WSS, parameters or {}, status_callback=status_callback, action=action, after=SORRY)
    return verbs(document)


def test_a_stream_carries_its_url_callback_and_parameters() -> None:
    connected = connect({"token": "abc", "greeting": "hello"}, status_callback="https://a.example/status")[0]
    assert (connected.tag, connected.attrib) == ("Connect", {})
    [media] = connected
    assert media.tag == "Stream"
    assert media.attrib == {"url": WSS, "statusCallback": "https://a.example/status"}
    assert [(p.tag, p.attrib) for p in media] == [
        ("Parameter", {"name": "token", "value": "abc"}),
        ("Parameter", {"name": "greeting", "value": "hello"}),
    ]


def test_without_an_action_the_apology_follows_the_stream() -> None:
    after = [(verb.tag, verb.text) for verb in connect()[1:]]
    assert after == [("Say", SORRY.sentence), ("Dial", SORRY.number)]


def test_with_an_action_nothing_follows_the_stream() -> None:
    [connected] = connect(action="https://a.example/twilio/after")
    assert connected.attrib == {"action": "https://a.example/twilio/after"}


@pytest.mark.parametrize("url", [WSS + "?token=abc", WSS + "?", "https://a.example/twilio/stream", "/twilio/stream"])
def test_a_url_that_twilio_would_not_open_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="no query"):
        twiml.stream(url, {}, status_callback=None, action=None, after=SORRY)


def test_a_parameter_stays_under_500_characters_name_included() -> None:
    [parameter] = connect({"name": "v" * 495})[0][0]
    assert len(parameter.attrib["value"]) == 495
    with pytest.raises(ValueError, match="'name' holds 496 characters") as error:
        connect({"name": "v" * 496})
    assert "vvv" not in str(error.value)  # it may be a token


def test_a_failure_says_its_sentence_then_dials_its_number_and_ends() -> None:
    assert outline(twiml.failed(SORRY)) == [("Say", SORRY.sentence), ("Dial", SORRY.number)]
    assert outline(twiml.failed(Failure("Sorry."))) == [("Say", "Sorry.")]
    assert outline(twiml.failed(Failure("", SORRY.number))) == [("Dial", SORRY.number)]
    assert outline(twiml.failed(Failure(""))) == []


def test_a_sentence_may_have_its_language() -> None:
    [say] = verbs(twiml.failed(Failure("Het spijt ons.", language="nl-NL")))
    assert say.attrib == {"language": "nl-NL"}
    assert verbs(twiml.failed(Failure("Sorry.")))[0].attrib == {}


def test_a_refused_call_hears_the_busy_tone() -> None:
    [reject] = verbs(twiml.rejected())
    assert (reject.tag, reject.attrib) == ("Reject", {"reason": "busy"})


def test_the_short_answers() -> None:
    assert outline(twiml.say_and_hang_up("We are full.")) == [("Say", "We are full."), ("Hangup", None)]
    assert outline(twiml.hang_up()) == [("Hangup", None)]
    assert outline(twiml.dial("+31201234567")) == [("Dial", "+31201234567")]
    assert verbs(twiml.dial("+31201234567"))[0].attrib == {}
    [dial] = verbs(twiml.dial("+31201234567", "+31207654321"))
    assert dial.attrib == {"callerId": "+31207654321"}


def test_awkward_text_arrives_as_it_was() -> None:
    assert verbs(twiml.say_and_hang_up(AWKWARD))[0].text == AWKWARD
    assert connect({"name": AWKWARD})[0][0][0].attrib["value"] == AWKWARD


def test_characters_that_xml_cannot_hold_are_left_out() -> None:
    assert verbs(twiml.failed(Failure(f"Sor{NOT_XML}ry")))[0].text == "Sorry"
    assert connect({"name": f"Jo{NOT_XML}"})[0][0][0].attrib["value"] == "Jo"
