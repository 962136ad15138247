"""Read, check, override, explain and freeze a `RunConfig`."""

from fl_inmetro.config.load import check, config_hash, frozen_json, load, to_toml
from fl_inmetro.config.schema import RunConfig

__all__ = ["RunConfig", "check", "config_hash", "frozen_json", "load", "to_toml"]
