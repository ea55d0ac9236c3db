"""python -m experiments.benchmarks.input_pipeline"""

from experiments.benchmarks.input_pipeline import benchmark

if __name__ == "__main__":
  benchmark.main()
