"""Faults on real processes, and the proof that nothing was lost or stored twice.

world     servers, proxies, topic, load and pipeline of one run; everything a fault can reach
faults_*  the faults, one class each, by what they break
runner    one fault after another: inject, hold, end, wait for recovery, look for what was left behind
proof     that Postgres and Redis hold what the log says
python -m tests.chaos --faults 100 --seed 7    the long run, `make chaos`
"""
