"""How a model's chat template writes the assistant's turn: a report to learn from is tokenised as the model would write it.

The turn is rendered by the template and the generation prompt taken away. What stands before the text (SmolVLM's space) and
what ends it (Gemma's <end_of_turn>) belongs to the report's tokens; what the template writes after its end does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from chexalign.errors import RecipeError
from chexalign.policies.prompt import in_words, rendered

QUESTION, REPORT = "Describe the image.", "The heart is normal in size."  # any words: only what surrounds them is read


@dataclass(frozen=True)
class AssistantTurn:
    """What surrounds a report. Empty strings and no end where the model has no template, or none that writes such a turn."""

    opening: str = ""  # a prompt as the template ends it, up to where the model goes on
    before: str = ""  # between that and the report
    written_after: str = ""  # all that the template writes after the report
    after: str = ""  # the part of it that the model must write: up to the token that ends the turn
    end_id: int | None = None  # that token; None where the template writes none


def assistant_turn(processor: Any) -> AssistantTurn:
    """Read off the processor's chat template."""
    if not getattr(processor, "chat_template", None):
        return AssistantTurn()
    try:
        opening, rest = _parted(processor, REPORT)
    except RecipeError:  # a template of prompts alone
        return AssistantTurn()
    before, found, written = rest.partition(REPORT)
    if not found:
        return AssistantTurn()
    tokenizer = getattr(processor, "tokenizer", processor)
    special = {t.content: i for i, t in tokenizer.added_tokens_decoder.items() if t.special}
    special |= {name: tokenizer.convert_tokens_to_ids(name) for name in tokenizer.all_special_tokens}
    places = sorted((place, name) for name in special if (place := written.find(name)) >= 0)
    if not places:
        return AssistantTurn(opening, before, written, written.rstrip())
    place, name = places[0]
    return AssistantTurn(opening, before, written, written[: place + len(name)], special[name])


def turn_ids(processor: Any, turn: AssistantTurn, text: str) -> list[int]:
    """Token ids of the turn that holds `text`, from where the prompt ends to the end of the turn."""
    tokenizer = getattr(processor, "tokenizer", processor)
    words = turn.before + text + turn.after
    if turn.opening:
        rest = _parted(processor, text)[1]  # templates trim, or move what a report holds
        words = rest.removesuffix(turn.written_after) + turn.after if rest.endswith(turn.written_after) else words
    opening, whole = (tokenizer(t, add_special_tokens=False)["input_ids"] for t in (turn.opening, turn.opening + words))
    if whole[: len(opening)] == opening:
        return whole[len(opening) :]
    return tokenizer(words, add_special_tokens=False)["input_ids"]  # where prompt and report would share a token


def _parted(processor: Any, text: str) -> tuple[str, str]:
    """(the prompt, what follows it) as the template writes a question and this answer. Raises RecipeError."""
    turns = [
        {"role": role, "content": [{"type": "text", "text": words}]}
        for role, words in (("user", QUESTION), ("assistant", text))
    ]
    if not hasattr(processor, "image_processor"):
        turns = in_words(turns)
    opening = rendered(processor, turns[:1], add_generation_prompt=True)
    whole = rendered(processor, turns, add_generation_prompt=False)
    if not whole.startswith(opening):
        raise RecipeError("policy.model: its chat template writes answered and unanswered questions differently")
    return opening, whole[len(opening) :]
