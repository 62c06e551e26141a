"""What a claim measures, as data: a table, the rows of it, and a statistic over them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Cell = str | int | float | bool | None
"""What a cell may be asked for; None: blank."""
Where = dict[str, Cell | tuple[Cell, ...]]
"""Column -> the value a row must have there, or several of which it must have one."""

TIME_SUFFIX = "_ms"


class StrictModel(BaseModel):
    """Frozen, and a key that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Value(StrictModel):
    """A scenario's value: an average of a column of ``requests.csv``."""

    column: str
    average: Literal["median", "mean"]
    weight: str | None = Field(None, description="of a mean: the column that each request counts with")

    @model_validator(mode="after")
    def _a_median_has_no_weight(self) -> Self:
        if self.average == "median" and self.weight is not None:
            raise ValueError("weight belongs to average: mean")
        return self


class Rows(StrictModel):
    """Which rows count."""

    table: str = Field(description="name of a CSV file without its suffix")
    planned: str | None = Field(
        None, description="table of the scenarios behind it, where the table itself has rows of records only"
    )
    where: Where = {}
    where_not: Where = {}
    target: str | None = Field(None, description="what makes the table's rows, where no column of it says so")

    @property
    def alternatives(self) -> tuple[Where, ...]:
        """A row belongs to the claim if it also matches one of these."""
        return ({},)

    @property
    def is_time(self) -> bool:
        """Whether times are measured, which those of functional placements are not."""
        return False


class OfRequests(Rows):
    """A statistic over the requests of scenarios."""

    value: Value
    pair_by: tuple[str, ...] = Field(min_length=1, description="scenarios that agree in these are compared")

    @property
    def is_time(self) -> bool:
        """Whether times are measured."""
        return self.value.column.endswith(TIME_SUFFIX)


class OfPairs(Rows):
    """Scenarios of one kind over those of another."""

    numerator: Where
    denominator: Where

    @property
    def alternatives(self) -> tuple[Where, ...]:
        """Both sides of the pairs."""
        return (self.numerator, self.denominator)

    @model_validator(mode="after")
    def _sides_differ(self) -> Self:
        if self.numerator == self.denominator:
            raise ValueError(f"numerator and denominator are both {self.numerator}")
        return self


class Ratio(OfPairs, OfRequests):
    """Geometric mean, over the pairs, of one scenario's value over the other's."""

    statistic: Literal["ratio"]


class Trend(OfPairs, OfRequests):
    """Factor by which that ratio changes per doubling of an axis."""

    statistic: Literal["trend"]
    axis: str = Field(description="one of pair_by")

    @model_validator(mode="after")
    def _pairs_lie_on_the_axis(self) -> Self:
        if self.axis not in self.pair_by:
            raise ValueError(f"axis {self.axis!r} is none of pair_by")
        return self


class Best(OfRequests):
    """Lowest value at some places of an axis over the lowest at all others; of all groups the largest."""

    statistic: Literal["best"]
    axis: str
    places: tuple[float, ...] = Field(min_length=1, description="where the paper has the lowest")


class RatioOfColumn(OfPairs):
    """Geometric mean of ratios of a column that has its intervals in the table."""

    statistic: Literal["ratio_of_column"]
    column: str
    low: str
    high: str
    pair_by: tuple[str, ...] = Field(min_length=1)
    count: str = Field(description="column whose sum is n")


class Share(Rows):
    """Sum of a column over the sum of another."""

    statistic: Literal["share"]
    part: str
    whole: str


class Maximum(Rows):
    """Largest value of a column."""

    statistic: Literal["maximum"]
    column: str
    count: str = Field(description="column whose sum is n")


class Count(Rows):
    """Number of the rows that match something more."""

    statistic: Literal["count"]
    counted: Where


Measure = Annotated[
    Ratio | Trend | Best | RatioOfColumn | Share | Maximum | Count,
    Field(discriminator="statistic"),
]
