"""python -m experiments.class_balance"""

from experiments.class_balance import study

if __name__ == "__main__":
  study.main()
