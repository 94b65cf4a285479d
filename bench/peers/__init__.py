"""Other tools on the same job: `python -m bench.peers` reads one topic with each of them into a table like ours.

catalogue.py lists them, programs/ and connect/ are what each of them runs, environments.py installs them apart from
this project, truth.py says what they must have stored, race.py times one of them, report.py writes it all down.
README.md says what each of them guarantees and how it was set up.
"""
