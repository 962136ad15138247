"""What somebody who sees a client's update, or only the models, can learn about a meter.

Each attack is measured against an adversary who saw nothing of the victim and knows the population:
the mean of the other clients for what is reconstructed, the larger class for what is told apart.
"""

from __future__ import annotations
