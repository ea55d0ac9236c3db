"""python -m experiments.loss_sampling"""

from experiments.loss_sampling import study

if __name__ == "__main__":
  study.main()
