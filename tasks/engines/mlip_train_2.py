"""Train with the ``mlp`` of MLIP-2, which is spelled otherwise."""

from tasks.engines.mlip_program import MLIP_2
from tasks.engines.mlip_train import MlipTraining

ENGINE = MlipTraining(MLIP_2)
