"""Drift: whether a run's model still fits what the meters say, watched day by day."""

from fl_inmetro.drift.alarms import Alarm as Alarm
from fl_inmetro.drift.request import Request as Request
from fl_inmetro.drift.watch import Report as Report
from fl_inmetro.drift.watch import watch as watch
