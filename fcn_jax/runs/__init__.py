"""A run: its options, its folder, its loop, and the model that it trains.

    config = runs.Train(run=runs.config.Run(workdir=pathlib.Path("runs/mine")))
    print(runs.train(config))
    trained = runs.load("runs/mine")
    classes = inference.predict(trained.model, trained.variables, images)

- `Train`: the options, in groups (`config`);
- `train`: trains to the end, and resumes a run that was interrupted;
- `load`, `TrainedModel`: the model of a run, its classes and its options;
- `Interrupted`, `NonFiniteError`: how `train` ends early;
- `checkpoints`: the steps of a run on disk;
- `processes`, `watch`: several processes that train together;
- `records`: JSON Lines and TensorBoard files.
"""

from fcn_jax.runs import checkpoints
from fcn_jax.runs import config
from fcn_jax.runs import processes
from fcn_jax.runs import records
from fcn_jax.runs import watch
from fcn_jax.runs.config import Train
from fcn_jax.runs.loop import NonFiniteError
from fcn_jax.runs.signals import Interrupted
from fcn_jax.runs.trained_model import TrainedModel
from fcn_jax.runs.trained_model import load
from fcn_jax.runs.training import train

__all__ = [
  "Interrupted",
  "NonFiniteError",
  "Train",
  "TrainedModel",
  "checkpoints",
  "config",
  "load",
  "processes",
  "records",
  "train",
  "watch",
]
