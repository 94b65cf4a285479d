"""The mock data service: realistic user events into Kafka, with a ground truth to check the pipeline by.

    profiles, faults ──► plan ──► stream ──► publish ──► Kafka
    who, what is wrong   order    time         ▲
                                              pace, within run.Run

Everything random is decided by the plan, from the seed alone; the stream adds the time of day. So the same
seed gives the same events, however fast they are sent. Imports hotpath's vocabulary and settings, no more.
"""
