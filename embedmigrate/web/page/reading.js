// The server's replies as this page speaks of them.

/** Times of the server are milliseconds; here seconds. */
const seconds = (milliseconds) => (milliseconds == null ? null : milliseconds / 1000);

export function readRun(status) {
  return {
    id: status.runId,
    jobId: status.currentJobId,
    isRunning: status.isRunning,
    state: status.state,
    reason: status.stateReason,
    waitSeconds: status.waitSeconds,
    total: status.rowsTotal,
    done: status.rowsProcessed,
    own: status.rowsEmbedded + status.rowsFailed + status.rowsSkipped,
    ratio: status.progressRatio,
    failed: status.rowsFailed,
    skipped: status.rowsSkipped,
    requests: status.requests,
    retries: status.retries,
    tokens: status.tokens,
    cost: status.costUsd,
    rowsPerSecond: status.rowsPerSecond,
    elapsed: seconds(status.elapsedTime),
    eta: seconds(status.estimatedTimeRemaining),
    inFlight: status.inFlight,
    concurrency: status.concurrency,
    lastKey: status.lastProcessedId,
    startedAt: status.startedAt,
    endedAt: status.endedAt,
    error: status.error,
    model: status.model,
  };
}

export function readStats(stats) {
  return {
    eligible: stats.rowsEligible,
    embedded: stats.rowsWithEmbedding,
    missing: stats.rowsMissing - (stats.rowsStale ?? 0),
    stale: stats.rowsStale,
    withoutText: stats.rowsTotal - stats.rowsEligible,
    ratio: stats.coverageRatio,
    exact: stats.exact,
    countedAt: Date.now() - 1000 * stats.ageSeconds,
    place: `${stats.table} · ${stats.vectorColumn}`,
  };
}

export function readFailures({ errors }) {
  return {
    total: errors.total,
    kinds: errors.byCode.map(({ code, count }) => [code, count]),
    rows: errors.rows.map((row) => ({
      key: row.id,
      code: row.code,
      message: row.message,
      attempts: row.attempts,
      at: row.time,
    })),
  };
}
