"""What a run's model rests on: permutation importance, and what one forecast is made of.

`importance` says by how much the errors of the test windows grow when a model sees a part of its
input from another day of the same client. `explanation` takes one forecast apart into the client's
own profile and what each group of features adds to it, in kWh.
"""

from __future__ import annotations
