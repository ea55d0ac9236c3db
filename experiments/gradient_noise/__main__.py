"""python -m experiments.gradient_noise"""

from experiments.gradient_noise import study

if __name__ == "__main__":
  study.main()
