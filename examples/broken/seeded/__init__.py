"""Common faults, planted at random into trainings that are sound: many small broken runs that nobody wrote by hand.

    python benchmarks/bench_seeded.py            # what the findings say of them

The faults are those of the mutation operators and taxonomies that are published for deep learning. A planted fault
counts if it does harm: if the model that was trained with it is worse than the one that was trained without.
"""

from stepscope.examples.broken.seeded.bases import BASES, HELD_BACK, Base
from stepscope.examples.broken.seeded.fault import Fault
from stepscope.examples.broken.seeded.faults import FAULTS
from stepscope.examples.broken.seeded.seeding import Seeded, seed

__all__ = ["BASES", "FAULTS", "HELD_BACK", "Base", "Fault", "Seeded", "seed"]
