"""python -m experiments.patchwise"""

from experiments.patchwise import study

if __name__ == "__main__":
  study.main()
