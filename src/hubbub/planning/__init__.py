"""What a load takes: workers and machines, memory, the engine, the network; and what is in the way of more."""

from hubbub.planning.figures import COSTS, ENGINES, Costs, EngineCosts
from hubbub.planning.load import Load, Machine
from hubbub.planning.plan import EnginePlan, Limit, Plan, Wall, plan

__all__ = [
    "COSTS",
    "ENGINES",
    "Costs",
    "EngineCosts",
    "EnginePlan",
    "Limit",
    "Load",
    "Machine",
    "Plan",
    "Wall",
    "plan",
]
