"""What callers say to the cascade: finished sentences, slow ones, interruptions, conversations, things to remember.

The slow sentences were written without a look at how the engine decides that a caller is done, and are not to be
changed to suit it.
"""

from __future__ import annotations

import random
from typing import NamedTuple

FINISHED = (
    "Hello, how are you today?",
    "What can you do for me?",
    "I would like to book a table for two.",
    "My name is Margaret Collins.",
    "Can you hear me well?",
    "What time is it now?",
    "Please tell me your name.",
    "I have a question about my bill.",
    "The washing machine is broken again.",
    "Could you help me with my order?",
    "I will be there at half past three.",
    "We live on the second floor.",
    "How long does it usually take?",
    "That is very kind of you.",
    "What day is it today?",
    "My brother works in a hospital.",
    "I cannot find my keys anywhere.",
    "Do you speak any other language?",
    "The train was late this morning.",
    "I need a taxi to the airport.",
    "Are you a real person?",
    "My dog is called Rusty.",
    "I am a vegetarian.",
    "It is raining here.",
    "How much does it cost?",
    "I lost my wallet on the bus.",
    "Please send it to my office.",
    "My son starts school in September.",
    "Who am I talking to?",
    "I called you last week about the heating.",
    "There is a problem with the door.",
    "Is the shop open on Sunday?",
    "I do not drink coffee any more.",
    "My doctor told me to rest.",
    "Where can I park my car?",
    "I want to cancel my appointment.",
    "She has her birthday in March.",
    "Nobody answers the other number.",
    "Tell me something about yourself.",
    "The parcel arrived yesterday.",
    "I prefer to be called in the evening.",
    "What is the weather like?",
    "You are hard to understand.",
    "My favourite colour is green.",
    "We are going to Portugal in May.",
    "Could you say that more slowly?",
    "I think that was everything.",
    "The code did not work.",
    "When do you close tonight?",
    "Yes, that is right.",
)


class Slow(NamedTuple):
    """Phrases of one sentence, and the milliseconds of pause between them."""

    phrases: tuple[str, ...]
    pauses: tuple[int, ...]

    @property
    def text(self) -> str:
        return " ".join(self.phrases)


def _slow(text: str) -> Slow:
    """From a sentence with the pauses written between its phrases: `I need, 400, a taxi.`"""
    parts = text.split("|")
    return Slow(tuple(part.strip() for part in parts[::2]), tuple(int(part) for part in parts[1::2]))


SLOW = tuple(
    map(
        _slow,
        (
            # after function words
            "I would like to | 450 | make an appointment for Tuesday.",
            "Can you tell me the | 600 | opening hours of the shop?",
            "I am calling about my | 500 | electricity bill.",
            "Please put me through to | 650 | the service department.",
            "My sister lives in | 400 | Manchester.",
            "We need a table for | 550 | six people.",
            "The meeting was moved from | 350 | Monday to | 500 | Thursday afternoon.",
            "I have been waiting for | 700 | almost two weeks.",
            "It is about the | 600 | the invoice from last month.",
            "Could you | 450 | call me back tomorrow morning?",
            # at commas and conjunctions
            "When I got home, | 500 | the door was open.",
            "If it rains tomorrow, | 650 | we will stay at home.",
            "I wanted to come on Friday, | 600 | but my car broke down.",
            "My wife is a teacher, | 550 | and I work at the post office.",
            "I called yesterday, | 450 | because nobody had answered my letter.",
            "Well, | 400 | I am not sure about that.",
            "Yes, | 550 | I would like to change my booking.",
            "No, | 600 | I meant the other address.",
            "Hello, | 650 | this is Margaret Collins.",
            "First I lost my keys, | 450 | then my phone, | 450 | and then my wallet.",
            # after hesitations
            "I need, um, | 600 | a new password.",
            "My number is, er, | 700 | five five five, | 350 | nine one six.",
            "It was, uh, | 550 | three weeks ago, I think.",
            "So, um, | 650 | how does this work?",
            "I think, well, | 500 | it was a Wednesday.",
            # before names and numbers
            "My name is | 500 | Thomas Baker.",
            "The code of the gate is | 650 | four four one seven.",
            "Please remember that my flight number is | 600 | B A, | 400 | two eight nine.",
            "Our address is | 450 | twenty six, | 350 | Maple Street.",
            "The doctor is called | 700 | Miller.",
            "I was born on | 500 | the fourteenth of March, | 400 | nineteen seventy.",
            "Remember that the dentist is on | 600 | Friday, | 450 | at ten o'clock.",
            "My daughter's name is | 650 | Charlotte.",
            "Remember that I parked on level | 550 | three.",
            "The invoice number is | 300 | eight three zero, | 500 | five two.",
            # numbers in groups, as people read them out
            "Four four | 350 | one seven.",
            "It is zero two zero, | 450 | seven nine four six, | 450 | zero nine five eight.",
            # where it could have been over
            "I would like a room | 600 | for two nights.",
            "Can you help me | 550 | with my computer?",
            "My brother is coming | 700 | on Saturday.",
            "I lost my wallet | 500 | on the bus to the station.",
            "The heating is broken | 650 | in the bathroom.",
            "Remember that I am allergic to peanuts | 550 | and shellfish.",
            "I want to cancel | 400 | my appointment on Monday.",
            "What time is it | 450 | in New York?",
            "We have two children | 650 | and a dog.",
            "Remember that my sister has her birthday | 500 | in September.",
            "I need a taxi | 600 | to the airport | 600 | at five in the morning.",
            # short ones with one long pause
            "The gate | 700 | does not open.",
            "How do I | 700 | get there?",
        ),
    )
)

LONG = (
    "Thank you for calling our office today. Before we begin I would like to tell you a few things about how this"
    " works, so that you know what to expect. You may ask me anything about your order, your address or your next"
    " appointment, and I will write down whatever you tell me.",
    "There are three ways to reach the station from here. The first one is the bus, which leaves every ten minutes in"
    " front of the town hall. The second one is to walk along the river, which takes about half an hour. The third"
    " one is a taxi, and you will find several of them behind the church.",
    "The museum was built more than a hundred years ago by a family of merchants. On the ground floor you can see"
    " their furniture and many old paintings. On the second floor there are maps and coins from all over the world,"
    " and at the top of the house there is a small garden with a view over the harbour.",
    "Please have a pencil and a sheet of paper ready, because I am going to explain the next steps. You open the"
    " box and take out the cable, the screws and the metal plate. Then you fix the plate to the wall, about as high"
    " as your shoulder, and you pull the cable through the opening in the middle.",
    "Our garden centre has many flowers this month. The roses are red and white, the tulips come in every colour, and"
    " the herbs are at the entrance on the left. Everything that you buy on a Wednesday is a little cheaper, and we"
    " bring heavy things to your home when you live in the town.",
)
"""What the agent is made to say, so that callers have something to interrupt: a quarter of a minute each."""

EVEN = (
    "I may be away for a year or more while you and Emma row along the narrow river in your old boat until we all know"
    " where her mother and your uncle are living.",
    "My mother and her brother will be home in an hour or more and in the meanwhile we may all go along the narrow lane"
    " near the mill and on over the low hill to the old harbour.",
)
"""Sentences of vowels and what sounds like them, without a pause: if they grow soft, somebody has made them so."""

BARGES = (
    "Sorry, can I stop you there?",
    "Wait, that is not what I wanted.",
    "Hold on a second, please.",
    "Excuse me, I have another question.",
    "No, I meant something else.",
    "I know all of that already.",
    "That is enough, thank you very much.",
    "Can we talk about my appointment?",
    "Please stop talking for a moment.",
    "Just tell me what time it is.",
    "Hang on, somebody is at the door.",
    "What day is it today?",
    "Okay, okay, I understand.",
    "But I have no time for this.",
    "Actually, I am calling about my bill.",
    "Listen, I am in a hurry.",
    "My name is Thomas Baker.",
    "Yes, yes, I have heard that before.",
    "Remember that my gate code is four four one seven.",
    "Who am I talking to?",
    "I am sorry, I have to interrupt you.",
    "Never mind, I will call again later.",
    "How much does it cost?",
    "Let me ask you something.",
    "All right, and what are you?",
)

NOISES = (
    *(["cough"] * 30),
    *(["throat"] * 8),
    *(["breath"] * 8),
    *(["sneeze"] * 4),
    *(["click"] * 6),
    *(["crackle"] * 6),
    *(["white"] * 8),
    *(["pink"] * 8),
    *(["hum"] * 4),
    *(["tone"] * 4),
    *(["static"] * 4),
    *(["slam"] * 5),
    *(["keyboard"] * 5),
)
LOUDER = (0.0, -10.0, 10.0)  # dB against speech, in turns


class Thing(NamedTuple):
    """Something to remember, how it is asked for, and what of the answer shows that it was remembered.

    `wanted` are words of which one must be heard, or digits in any spelling; the ear that judges has its own ideas
    about names, so they come in several spellings.
    """

    told: str
    asked: str
    wanted: tuple[str, ...]


THINGS = (
    Thing("Remember that my gate code is four four one seven.", "What is my gate code?", ("4417",)),
    Thing("Remember that my sister is called Anna.", "What is my sister called?", ("anna", "ana", "hannah", "hanna")),
    Thing("Remember that the dentist is on Friday.", "When is the dentist?", ("friday",)),
    Thing("Remember that my locker number is two nine six.", "What is my locker number?", ("296",)),
    Thing("Remember that I parked on level three.", "Where did I park?", ("3", "third")),
    Thing("Remember that my doctor's name is Miller.", "What is my doctor's name?", ("miller", "millar", "mueller")),
    Thing("Remember that the keys are under the flower pot.", "Where are the keys?", ("flower", "pot", "flowerpot")),
    Thing("Remember that my flight leaves at seven thirty.", "When does my flight leave?", ("730",)),
    Thing("Remember that my favourite colour is green.", "What is my favourite colour?", ("green",)),
    Thing("Remember that the plumber comes on Tuesday.", "When does the plumber come?", ("tuesday",)),
    Thing("Remember that my room number is five one two.", "What is my room number?", ("512",)),
    Thing("Remember that my dog is called Rusty.", "What is my dog called?", ("rusty", "rustie")),
    Thing("Remember that the meeting is at half past ten.", "When is the meeting?", ("ten", "1030", "10")),
    Thing("Remember that I am allergic to peanuts.", "What am I allergic to?", ("peanuts", "peanut")),
    Thing("Remember that my brother lives in London.", "Where does my brother live?", ("london",)),
    Thing("Remember that the spare key is with my neighbour.", "Where is the spare key?", ("neighbour", "neighbor")),
    Thing("Remember that my train leaves from platform nine.", "Which platform does my train leave from?", ("9",)),
    Thing("Remember that the party is on Saturday.", "When is the party?", ("saturday",)),
    Thing("Remember that my order number is eight three zero five.", "What is my order number?", ("8305",)),
    Thing("Remember that the milk is in the fridge.", "Where is the milk?", ("fridge", "refrigerator")),
)

BETWEEN = (
    "What time is it?",
    "What day is it today?",
    "It is raining here.",
    "How are you today?",
    "What can you do for me?",
    "I am calling from home.",
    "My brother works in a hospital.",
    "The train was late this morning.",
)


def shuffled(items: tuple[str, ...], seed: str) -> list[str]:
    """The same order for the same seed, on every machine."""
    order = list(items)
    random.Random(seed).shuffle(order)
    return order
