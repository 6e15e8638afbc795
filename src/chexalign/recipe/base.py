"""What every section of a recipe is made of."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    """Closed, frozen, without NaN and infinity; `true` is no number."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any) -> Any:
        """`n: true` would count as 1. Raises ValueError naming the setting."""
        for name, given in value.items() if isinstance(value, dict) else ():
            if (
                isinstance(given, bool)
                and name in cls.model_fields
                and not _takes_truth(cls.model_fields[name].annotation)
            ):
                raise ValueError(f"{name} is {str(given).lower()}, where another kind of value belongs")
        return value


def _takes_truth(annotation: Any) -> bool:
    return annotation in (bool, Any) or any(_takes_truth(part) for part in get_args(annotation))


Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what every generator of random numbers takes
