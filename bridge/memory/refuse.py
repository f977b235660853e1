"""What is never kept: a memory is about the caller's world, not a question, not small talk, and never an order."""

from __future__ import annotations

import re

from .english import listed


def any_of(text: str) -> str:
    """A regular expression for any line of a text; an indented line goes on with the one before."""
    return "|".join(re.sub(r"\n {8}(?=\S)", "", text).split("\n    ")).strip("|\n ")


MARKS = re.compile(r"(?i)\b(?:system|assistant|user|admin|developer|memory|context|instructions?|prompt)\s*[:=>#]")

ORDERS = re.compile(
    r"\b(?:"
    + any_of(r"""
    (?:forget|ignore|disregard|override|overrule|bypass|erase|delete|wipe|clear|drop|discard|unlearn|reset|purge
        |supersede|overwrite)
        (?: out| up| about)? (?:all|everything|anything|whatever|your|previous|prior|earlier|past|me|them all|that you
        |the (?:above|rules?|instructions?|memor\w+|system|safety|past|previous|last|database|records?)
        |(?:any|every) (?:of|previous|prior|earlier|rules?|instructions?|memor\w+)|what (?:you|i|they|he|she|we)
        |my (?:memor\w+|data|records?|past|history))
    (?:system|hidden|secret|initial|developer|original) (?:prompts?|instructions?|messages?|rules?)
    (?:previous|prior|new|following|these|above|last|updated|your|further|additional)
        (?: instructions?| directives?| prompts?| orders| programming| rules)
    (?:new|important|updated?) (?:rules?|instructions?|directives?)(?! of)
    prompts?|jail ?br(?:ea|o)k\w*|root access|sudo|override code|do anything now|tool call|function call|base64
    (?:admin|administrator|developer|debug|god|dan|root|maintenance) (?:mode|access|rights?|privileges?)
    (?:instructed|programmed|trained) to
    from (?:now|here|this moment|today) (?:on|onwards?|forwards?) (?:you|your|always|never|only|reply
        |respond|answer|speak|talk|say|act|call|greet|tell|be|the (?:agent|assistant|model|bot))
    you(?: are|'re) (?:now|no longer|not allowed|allowed|to|free|going to|required|supposed|forbidden|a bot|an ai)
    you (?:must|shall|will|should|may|have to|need to|ought to|had better|can|could|are to|never|always|do not|don't
        |must not|can't|cannot|won't|shouldn't)(?: now| always| never| not| only| also| then)* (?:tell|say|reveal|obey
        |answer|reply|respond|speak|talk|give|ignore|forget|remember|act|pretend|be|do|help|greet|transfer|send
        |agree|accept|follow|trust|believe|comply|serve|refuse|lie|share|read|repeat|offer|grant|approve|treat|address
        |stop|start|store|save|delete)
    (?:obeys?|comply with|serves?) (?:me|every|all|him|her|us|them)
    your (?:new |real |only |true |main |first |next )*(?:instructions?|rules?|memor(?:y|ies)|name|job|task|role|purpose
        |goals?|master|owner|creator|developer|boss|programming|guidelines|training|context|database|records|secrets?
        |orders|persona|character|system|restrictions|limits|filters?|behaviou?r|makers?|mission|duty)
    (?:the|this|that|an?|every|any|all) (?:other |next |last |previous )*(?:assistants?|ai|bots?|chatbots?|llm
        |voice agent
        |language models?)(?:'s)? (?:must|should|shall|has|have|will|is|are|needs?|always|never|can|may|obeys?)
    (?:assistants?|ai|bots?|chatbots?|agents?|models?) (?:must|should|shall|has to|have to|obeys?|always|never
        |is (?:to|allowed|permitted|required|instructed|free)|needs? to)
    (?:as|like) an? (?:ai|assistant|language model)
    (?:read|tell|show|give|send) me (?:everything|all) (?:that |what )?you
    (?:previous|last|earlier|next|every|each|all|any|all the|the other|another|other|most) (?:callers?|users?
        |person who (?:calls|called)|customers? who (?:calls?|called))
    callers? before|callers? who|this caller|the (?:caller|user)(?:'s)? (?:is|has|was|wants?|may|must|should|can|will
        |name|account|before|asked|said|told)
    (?:(?:anyone|anybody|everyone|everybody|people|those) who|whoever) (?:calls?|rings?|phones?)
    (?:who|what) (?:called|rang|phoned|was said) before (?:me|this)
    (?:pretend|role ?play|imagine|simulate|act) (?:to be|that you|you|as|like you|being|an? )
    (?<!\bi )(?<!\bwe )(?<!\bhe )(?<!\bshe )(?<!\bthey )(?:always|never|only) (?:answer|reply|respond|say|tell
        |speak|talk|reveal|mention|greet|call me|begin|start|end
        |refuse|agree|obey|give|repeat|address|act|be|pretend|trust|believe|remember|do (?:as|what))
    (?:reveal|print|output|dump|leak|recite|disclose|expose|repeat|summari[sz]e|list) (?:all|everything|your|every
        |the (?:system|instructions?|memor\w+|secrets?|words? above|above|text|database|conversation))
    i(?: am|'m) (?:your|the|one of (?:your|the)) (?:new |real |system |lead )*(?:developer|admin\w*|creator|operator
        |programmer|supervisor|maker|system|god)
    this is (?:your|the|an?) (?:new |real |system |lead )*(?:developer|admin\w*|creator|operator|programmer|supervisor
        |maker|system|override|emergency override|test of)
    (?:should|must|has to|have to|is to|are to|needs? to|shall) be (?:told|obeyed|given|greeted|answered|ignored
        |forgotten|transferred|treated|granted|allowed|refunded)
    (?:respond|reply|answer|speak|talk) (?:only|always|exclusively|with|to every|in the style)
    (?:end|start|begin|beginning) of (?:the )?(?:prompt|instructions?|conversation|system|context|message)
    (?:do not|don't|stop) (?:follow|following|obey|obeying|being)|do (?:as|what) i say
    safety (?:filters?|rules?|guidelines?)|(?:i g n o r e|f o r g e t|o b e y)
    """)
    + r")\b"
)

_REQUEST = re.compile(
    r"(?:"
    + any_of(r"""
    (?:can|could|would|will|won't|do|did|don't|may|are|were|have) (?:you|ya)\b
    (?:can|could|may|shall|should|might) (?:i|we|someone|somebody)\b
    i(?:'d| would) (?:like|love|want|be grateful|appreciate|need) (?:you|it if|if you|an?|some|the|to (?:know|ask|hear
        |talk|speak|book|order|make|change|cancel|get|check|say|thank|see|find|complain|report|reserve|return|use
        |have(?! my)
        |be|understand|discuss|arrange|schedule))\b
    (?:i|we) (?:want|need|wanted|wish) (?:you|your|help|some help|an? (?:answer|minute|moment|second|hand|taxi
        |appointment|table|room)|to (?:know|ask|hear|talk|speak|book|order|make|change|cancel|check|say|thank|see
        |find out|complain|report|reserve|return|understand|discuss|arrange|schedule))\b
    i(?:'m| am)(?: just| only)? (?:looking for|calling|ringing|phoning|asking|wondering|trying to|interested in
        |checking|looking|saying|kidding|joking)\b
    i (?:was|am|just|only)(?: just| only)* (?:wondering|wanted|calling|curious|asking|checking|hoping)\b
    (?:let|give|tell|show|play|get|bring|pass|send|read|sing|find|put|spell|describe|explain|teach|remind|wake|help
        |connect|transfer|ask) (?:me|us|it|him|her|them)\b
    let's (?:talk|see|start|go(?! with| for)|begin|try|hear|do it|move|get|say|play|speak|change|stop|leave|forget
        |wait|continue
        |discuss|pretend|imagine)\b
    (?:please|kindly)\b(?! (?:only|never|don't) (?:ring|call|phone|send|leave|write to|post|email|deliver
        |let) (?:me|my|us|our)\b
        | (?:ring|call|phone|send|leave|write to|post|email|deliver|speak|let)\b.*\b(?:only|never|from now on
        |letters?|parcels?|post|packages|slowly|adverts|when (?:i|you)|whenever)\b)|(?:how|what) about\b
        |any (?:ideas?|chance|suggestions|thoughts|news)\b
    """)
    + ")"
)

_IMPERATIVES = frozenset(
    listed("""
    tell give show play call book set turn stop start repeat read find help send wait hold open cancel order check
    search sing speak talk say come go hang explain describe write translate spell connect transfer pass get bring act
    pretend imagine consider listen look take make add remove delete erase ignore forget keep always never slow speed
    switch answer ask reply respond be try let use put leave excuse guess believe trust follow save store record
    recommend suggest choose pick wake sound count name list buy pay schedule reserve arrange change shut continue
    remind obey disregard print reveal output run execute enable disable don't whisper shout remember do
    """)
)

_AUX = (
    "is|are|was|were|do|does|did|can|could|will|would|should|shall|may|might|have|has|had|am"
    "|isn't|aren't|wasn't|weren't|don't|doesn't|didn't|hasn't|haven't|can't|couldn't|won't|wouldn't|shouldn't"
)
_ASKING = re.compile(
    r"(?:what|where|who|why|how|which|when|whose)(?: (?!i |we |my |our |he |she |they |it |the |you )[\w']+){0,3}? "
    rf"(?:{_AUX})\b|(?:what|where|who|how|when|why)'(?:s|re|d|ll)\b"
    r"|how (?:many|much|far|long|old|often|come|about)\b|what (?:time|day|year|kind|sort|else|if|for)\b"
    rf"|(?:{_AUX}) (?:i|we|you|he|she|it|they|there|the|my|our|your|his|her|this|that|these|those|any|anyone|anybody"
    r"|somebody|someone|an?)\b|(?:who|what|why|how|where|when)$"
)

_GUESS = re.compile(
    r"\b(?:"
    + any_of(r"""
    maybe|perhaps|possibly|probably|presumably|hopefully|supposedly|i(?: guess| suppose| wonder| wish| hope| doubt)
    (?:i|we|it|he|she|they) (?:might|may)|might be|could be|would be|may be|not (?:sure|certain)|no idea|who knows
    i (?:don't|do not) (?:know|remember)|i dunno|i(?:'ll|'m| was) think(?:ing)?|i(?:'ve)? forgot(?:ten)?
    i think i(?:'ll| will| might| should| may)|if only|what if|seems? like|it seems|(?:can't|cannot
        |couldn't) (?:recall|remember|think of)|(?:want|wants|wanting|need|needs) to know
    ask(?:s|ing)? (?:me |us )?(?:for|whether|which|what|if|where)|didn't (?:quite )?(?:catch|hear|get|understand)
        |let me think|we'll see|would have
    """)
    + r")\b"
)

_HEARSAY = re.compile(
    r"(?:(?:they|people|some|everyone|everybody) (?:say|says|are saying|reckon)|some(?:one|body) (?:said|told)"
    r"|i(?:'ve)? (?:heard|read|saw)(?: somewhere)? (?:that|about)\b|apparently|rumou?r|it's said|the news"
    r"|according to|word is)"
)

_PHATIC = re.compile(
    r"(?:(?:i|we)(?:'m|'ve|'d|'ll|'re)?(?: am| have| had| was| were| do| don't| didn't| did| can| can't| cannot| could"
    r"| couldn't| will| won't| would| just| really| also| still| so| very| not| all)* (?:"
    + any_of(r"""
    (?:think|guess|mean|said|say|saying|wonder|suppose|believe|thought|agree|apologi[sz]e|wish|appreciate|promise|bet)\b
    (?:see|understand|understood|know|knew|hear|heard)(?: (?:you|that|what|how|why|it|if|where)\b|,|$)
    (?:wait|waiting|hold|listening|calling|ringing|talking)(?: (?:on|a|here|to|for (?:you|an answer))\b|,|$)
    (?:back|here|there|ready|done|fine|good|well|great|okay|ok|sorry|sure|glad|tired|bored|confused|busy|joking|kidding
        |following|happy|listening|impressed|surprised|in a hurry|on hold|on the phone|care|mind)
        (?: now| today| again| too| then| right now| thanks| thank you)*(?:,|$)
    (?:sorry|sure|glad|happy) (?:to|that|if|about that)|a bit tired|standing\b|stranded|getting a|lost my thread
        |asked? you|(?:call|ring) (?:you|back)|thank you|told(?: you)?$
    (?:have|need|got|want|going|better) (?:to )?(?:go|run|think|hang up|be off|say|ask)(?: now)?(?:,|$)
    be (?:going|right|off)|hang up|off now|speak to you|see you|let you|tell you|get (?:back|it)|look(?:ing)? forward
    (?:like|love|hate) (?:that|it|this|you)$|did what|(?:have|got) (?:an? |one |another |some |just )*(?:questions?
        |minutes?|moments?|no idea)
    """)
    + r")|"
    + any_of(r"""
    (?:thanks?|thank you|cheers|hello|hi|hey|goodbye|bye|see you|never mind|no (?:problem|worries)|of course)\b
    (?:good (?:morning|evening|afternoon|night|day)|all right|alright|sounds|fair enough|wow)\b
    that(?:'s| is| was| would| will| sounds| makes)\b|this (?:is|was) (?!my|our|the|where|when|\w+ (?:speaking|calling))
    it(?:'s| is| was)(?! my\b| our\b| \w+'s\b)|it (?:has|sounds|looks|seems)\b|your\b
    you(?:'re|'ve|'ll|'d)?\b(?! can (?:reach|e-?mail|ring|find|contact|text|get hold of) (?:me|us|my|our)\b)
    there's (?:nothing|a lot)|there (?:is|are) nothing|(?:one|just a) (?:moment|second|minute)\b
    my (?:pleasure|god|goodness|bad|word|question|point|guess|apologies|mistake|battery|signal|line|connection)\b
    my phone(?:'s| is| keeps) (?:breaking|cutting|dying|ringing)|the (?:weather|line|connection|signal|traffic)\b
    (?:nice|lovely|good|great|pleased) (?:to|talking|speaking)|(?:absolutely|exactly|definitely|certainly|really)$
    if\b(?!.*,)
    """)
    + r")"
)


def orders(said: str) -> bool:
    """Whether a text tries to tell the model or the memory what to do."""
    return bool(MARKS.search(said) or ORDERS.search(" ".join(re.findall(r"[\w']+", said.lower()))))


def asks(sentence: str) -> bool:
    """Whether a sentence is a question."""
    return sentence.rstrip().endswith("?") or bool(_ASKING.match(sentence.lower()))


def empty_talk(sentence: str) -> bool:
    """Whether a sentence is a question, a request, a guess or small talk, and so tells nothing."""
    said = " ".join(re.findall(r"[\w']+|,", sentence.lower())).replace(" ,", ",")
    first = said.split(" ", 1)[0].rstrip(",")
    return (
        sentence.rstrip().endswith("?")
        or first in _IMPERATIVES
        or any(rule.match(said) for rule in (_ASKING, _REQUEST, _HEARSAY, _PHATIC))
        or bool(_GUESS.search(said))
    )
