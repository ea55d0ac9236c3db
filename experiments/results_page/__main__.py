"""python -m experiments.results_page"""

from experiments.results_page import page

if __name__ == "__main__":
  page.main()
