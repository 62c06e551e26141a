"""Layers that repeat are held in memory once."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from treespec.model.offload.keeper import Keeper
from treespec.model.synthetic.recipes import Recipes
from treespec.model.units import Unit
from treespec.ops.linear import WeightStorage

_LAYER = re.compile(r"(?<=\.layers\.)\d+(?=\.)")


def stored_name(name: str, recipes: Recipes) -> str:
    """The name, or names joined, of what holds the weights of a layer that repeats another."""
    return _LAYER.sub(lambda found: str(recipes.stored_layer(int(found[0]))), name)


@dataclass(frozen=True)
class SharingKeeper:
    """Gives a map that repeats an earlier one the storage of that one; ``keeper`` sees each only once."""

    keeper: Keeper
    recipes: Recipes
    _kept: dict[str, WeightStorage] = field(default_factory=dict, init=False)

    def keep(self, unit: Unit) -> WeightStorage:
        name = stored_name(unit.name, self.recipes)
        if name not in self._kept:
            self._kept[name] = self.keeper.keep(unit)
        return self._kept[name]

    def finish(self, fixed_bytes: int) -> None:
        self.keeper.finish(fixed_bytes)
