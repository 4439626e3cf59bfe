"""`python -m tfmm.search`: hyperopt's TPE around the stages that fit calls.

RUN/search/TARGET/
  search.jsonl       a line of what is searched, then a line a trial, as each ends
  catalog.pickle     the products without those of `test`, for trials that see them
  trials/NNNN/       trial.json, log.csv, output.txt
  best.toml          the experiment with the best trial's settings
  search.html        the page
"""
