"""Demo models: real MoE checkpoints built on this machine, so that no model hub is needed.

Importing this package needs neither numpy nor the engine; `ensure` asks for them when it has to build.
"""

from __future__ import annotations

from orchestrator.demo.cache import ensure
from orchestrator.demo.models import DEMO_MODELS, DemoModel, stand_in_for
from orchestrator.demo.options import DemoOptions, KimiK2MiniOptions, SmolMoeOptions

__all__ = ["DEMO_MODELS", "DemoModel", "DemoOptions", "KimiK2MiniOptions", "SmolMoeOptions", "ensure", "stand_in_for"]
