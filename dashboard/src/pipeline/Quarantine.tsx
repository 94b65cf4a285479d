import { useState } from "react";
import { type Quarantine as QuarantineReply, QUARANTINED, type QuarantineRow } from "../api/types";
import { usePoll } from "../api/usePoll";
import { Card, Empty } from "../parts/Card";
import { Download } from "../parts/Download";
import { Foreign } from "../parts/Foreign";
import { bytes, count, shortMoment, words } from "../text/format";
import { dump, fromBase64, preview } from "./bytes";

const ROWS = 20;
/** The first page shows what comes in; older pages stand still. */
const AGAIN_MS = 5_000;

export function Quarantine() {
  const [only, setOnly] = useState("");
  /** The cursors of the pages gone through; the last one is that of the page shown. */
  const [cursors, setCursors] = useState<string[]>([]);
  const [open, setOpen] = useState("");
  const cursor = cursors.at(-1);
  const still = cursor !== undefined || open !== "";
  const query = { class: only || undefined, limit: ROWS, cursor };
  const { body, error, loading } = usePoll<QuarantineReply>("/api/v1/quarantine", query, still ? undefined : AGAIN_MS);
  const rows = body?.rows ?? [];
  return (
    <Card
      title="Quarantine"
      className={error ? "old" : ""}
      aside={
        <div className="aside-controls">
          <select
            aria-label="Only this class"
            value={only}
            onChange={(event) => {
              setOnly(event.target.value);
              setCursors([]);
              setOpen("");
            }}
          >
            <option value="">all classes</option>
            {QUARANTINED.map((name) => (
              <option key={name} value={name}>
                {words(name)}
              </option>
            ))}
          </select>
          <Download
            path="/api/v1/quarantine"
            query={{ class: only || undefined, limit: 500 }}
            name="hotpath-quarantine.csv"
          />
        </div>
      }
    >
      {error && <p className="bad-text">{error.message}</p>}
      {rows.length ? (
        <table className="rows quarantine cards-when-narrow" data-testid="quarantine" aria-busy={loading}>
          <thead>
            <tr>
              <th scope="col">Stored</th>
              <th scope="col">Class</th>
              <th scope="col">Why</th>
              <th scope="col">Message</th>
              <th scope="col" className="number">
                Size
              </th>
              <th scope="col" className="number">
                Partition:offset
              </th>
            </tr>
          </thead>
          <tbody>
            {rows.map((row) => {
              // With the time: a topic that was made anew has the same offsets again.
              const place = `${row.stored_at} ${row.topic} ${row.partition}:${row.offset}`;
              return (
                <Row key={place} row={row} open={open === place} toggle={() => setOpen(open === place ? "" : place)} />
              );
            })}
          </tbody>
        </table>
      ) : (
        body && <Empty>{only ? `No message of the class ${words(only)} is kept.` : "No message is kept here."}</Empty>
      )}
      <div className="paging">
        <button
          type="button"
          className="quiet-button"
          disabled={!cursors.length}
          onClick={() => setCursors(cursors.slice(0, -1))}
        >
          Newer
        </button>
        <span className="muted">page {cursors.length + 1}</span>
        <button
          type="button"
          className="quiet-button"
          disabled={!body?.next_cursor}
          onClick={() => body?.next_cursor && setCursors([...cursors, body.next_cursor])}
        >
          Older
        </button>
      </div>
    </Card>
  );
}

function Row({ row, open, toggle }: { row: QuarantineRow; open: boolean; toggle: () => void }) {
  return (
    <>
      <tr>
        <td data-label="Stored" className="no-wrap">
          {shortMoment(new Date(row.stored_at))}
        </td>
        <td data-label="Class" className="no-wrap">
          <span className="tag">{words(row.class)}</span>
        </td>
        <td data-label="Why">{row.detail ? <Foreign text={row.detail} /> : "–"}</td>
        <td data-label="Message">
          <button type="button" className="link-button payload" aria-expanded={open} onClick={toggle}>
            {preview(row)}
          </button>
        </td>
        <td className="number" data-label="Size">
          {row.payload_size < 1024 ? `${row.payload_size} B` : bytes(row.payload_size)}
        </td>
        <td className="number mono" data-label="Partition:offset">
          {row.partition}:{row.offset}
        </td>
      </tr>
      {open && (
        <tr className="opened">
          <td colSpan={6}>
            <Raw row={row} />
          </td>
        </tr>
      )}
    </>
  );
}

function Raw({ row }: { row: QuarantineRow }) {
  const kept = fromBase64(row.payload);
  return (
    <>
      <p className="muted">
        {kept.length < row.payload_size
          ? `The first ${count(kept.length)} of ${count(row.payload_size)} bytes`
          : `All ${count(kept.length)} bytes`}
        , as they came:
      </p>
      <pre className="dump" tabIndex={0} aria-label="Bytes of the message">
        {kept.length ? dump(kept) : "(no bytes)"}
      </pre>
    </>
  );
}
