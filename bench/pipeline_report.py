"""What bench.pipeline has measured, for people."""

from rich.table import Table


def table(result: dict[str, object]) -> Table:
    """The result for people."""
    shown = Table(box=None, show_header=False, pad_edge=False)
    shown.add_column(no_wrap=True)
    shown.add_column()

    def figures(parts: dict[str, object]) -> str:
        return ", ".join(f"{name} {'-' if us is None else us}" for name, us in parts.items())

    host, raw = result["machine"], result["raw_copy"]
    bound = result["limit_events_per_s"]
    rows = {
        "machine": f"{host['cores']} cores of {host['cpu']}, {host['memory_gib']} GiB, Python {host['python']}",
        "workload": f"{result['events']:,} events of {result['value_bytes_mean']} bytes, {result['procs']} workers",
        "events/s": f"[bold]{result['committed_per_s']:,}[/bold] to the last Postgres commit, "
        f"[bold]{result['applied_per_s']:,}[/bold] to the last Redis apply, from the first commit on",
        "seconds": f"{result['seconds_to_first_commit']} to the first commit, {result['seconds_to_postgres']} to "
        f"the last, {result['seconds_to_redis']} to the last apply; {result['redis_heals']} heals of a log's views",
        "worker CPU µs/event": f"[bold]{result['worker_us']}[/bold] ({figures(result['worker_us_by_stage'])}); "
        f"whole process {result['worker_process_us']}",
        "server CPU µs/event": figures(result["server_us"]),
        "worker memory": f"{result['worker_rss_mib_max']} MiB at most, "
        f"of which bot counts {result['bot_counts_mib_max']}, known sessions {result['slots_mib_max']}; "
        "beside those, by quarter of the run: " + ", ".join(map(str, result["worker_mib_by_quarter"])),
        "raw COPY": f"{raw['rows_per_s']:,} rows/s by {raw['writers']} writers; "
        f"pipeline / raw = [bold]{result['ratio_to_raw_copy']}[/bold]",
        "limit": f"{bound:,} events/s; pipeline / limit = [bold]{result['ratio_to_limit']}[/bold]"
        if bound
        else "-",
        "limit µs/event": figures(result["limit_us"]),
    }
    if proof := result["proof"]:
        rows["proof"] = (
            f"every row compared: {proof['messages']:,} messages, {proof['messages_per_s']:,} a second"
        )
    for name, text in rows.items():
        shown.add_row(name, text)
    return shown
