import { useState } from "react";
import { ApiError, download, type Query } from "../api/client";

/** A button that saves a reply as a CSV file, and says so when it could not. */
export function Download({
  path,
  query,
  name,
  className = "quiet-button",
}: {
  path: string;
  query: Query;
  name: string;
  className?: string;
}) {
  const [wrong, setWrong] = useState("");
  const save = async () => {
    try {
      await download(path, { ...query, format: "csv" }, name);
      setWrong("");
    } catch (problem) {
      setWrong(problem instanceof ApiError ? problem.message : "The file could not be saved.");
    }
  };
  return (
    <>
      {wrong && (
        <span role="alert" className="bad-text">
          {wrong}
        </span>
      )}
      <button type="button" className={className} onClick={save} aria-label={`Save as ${name}`} title={`Save as ${name}`}>
        CSV
      </button>
    </>
  );
}
