-- The first schema. Later changes are numbered functions in migrations.py; this file then stays as it is.
-- No foreign keys and no secondary indexes (both block ALTER and slow the one short write per vote);
-- PRIMARY KEYs are never updated. Payloads that may grow are JSON text.

CREATE TABLE prompt (
    id VARCHAR PRIMARY KEY,
    messages VARCHAR NOT NULL,              -- JSON: [{"role", "content"}, ...]
    source VARCHAR NOT NULL,
    split VARCHAR NOT NULL,                 -- train | test, by hash
    tags VARCHAR[] NOT NULL,
    meta VARCHAR NOT NULL,                  -- JSON
    run_id VARCHAR,
    created_at TIMESTAMP NOT NULL DEFAULT current_timestamp
);

CREATE TABLE completion (
    id VARCHAR PRIMARY KEY,
    prompt_id VARCHAR NOT NULL,
    text VARCHAR NOT NULL,
    model VARCHAR NOT NULL,
    sampling VARCHAR NOT NULL,              -- JSON
    seed BIGINT,
    finish_reason VARCHAR,                  -- stop | length
    role VARCHAR NOT NULL,                  -- sample | demonstration | edit
    meta VARCHAR NOT NULL,                  -- JSON
    run_id VARCHAR,
    created_at TIMESTAMP NOT NULL DEFAULT current_timestamp
);

CREATE TABLE comparison (
    id VARCHAR PRIMARY KEY,
    prompt_id VARCHAR NOT NULL,
    completion_ids VARCHAR[] NOT NULL,      -- 2..9, canonical order
    strategy VARCHAR NOT NULL,
    propensity DOUBLE NOT NULL,
    purpose VARCHAR NOT NULL,               -- train | random | gold | repeat | eval
    overlap INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    run_id VARCHAR,
    created_at TIMESTAMP NOT NULL DEFAULT current_timestamp
);

CREATE TABLE annotator (
    id VARCHAR PRIMARY KEY,
    name VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,                  -- human | model | rule
    role VARCHAR NOT NULL,                  -- annotator | lead | admin
    meta VARCHAR NOT NULL,                  -- JSON
    created_at TIMESTAMP NOT NULL DEFAULT current_timestamp
);

CREATE TABLE assignment (
    id VARCHAR PRIMARY KEY,
    comparison_id VARCHAR NOT NULL,
    annotator_id VARCHAR NOT NULL,
    display_order VARCHAR[] NOT NULL,       -- completion ids as shown
    state VARCHAR NOT NULL,                 -- open | done | released
    leased_until TIMESTAMP,
    created_at TIMESTAMP NOT NULL DEFAULT current_timestamp
);

-- append-only: a vote is never updated and never deleted by a filter
CREATE TABLE vote (
    id VARCHAR PRIMARY KEY,                 -- made by the browser: a retry is the same vote
    assignment_id VARCHAR NOT NULL,
    verdict VARCHAR NOT NULL,               -- ranked | tie | all_bad | skip
    ranking VARCHAR[][] NOT NULL,           -- tiers of completion ids, best first
    strength INTEGER,                       -- 0..3
    criteria VARCHAR NOT NULL,              -- JSON
    rationale VARCHAR,
    flags VARCHAR[] NOT NULL,
    edited_text VARCHAR,
    seconds_visible DOUBLE,
    seconds_active DOUBLE,
    guideline_version INTEGER,
    supersedes VARCHAR,
    run_id VARCHAR,
    created_at TIMESTAMP NOT NULL
);

CREATE TABLE run (
    id VARCHAR PRIMARY KEY,
    stage VARCHAR NOT NULL,
    status VARCHAR NOT NULL,
    record VARCHAR NOT NULL,                -- JSON: the whole of run.json
    created_at TIMESTAMP NOT NULL DEFAULT current_timestamp
);

CREATE TABLE score (
    completion_id VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    mean DOUBLE NOT NULL,
    std DOUBLE,
    PRIMARY KEY (completion_id, run_id)
);

-- what counts now: votes that no later vote supersedes, with who gave them on what
CREATE VIEW current_vote AS
SELECT v.*, a.comparison_id, a.annotator_id, a.display_order, c.prompt_id, c.completion_ids, c.purpose,
       c.strategy, n.kind AS annotator_kind, n.name AS annotator_name
FROM vote v
JOIN assignment a ON a.id = v.assignment_id
JOIN comparison c ON c.id = a.comparison_id
JOIN annotator n ON n.id = a.annotator_id
WHERE NOT EXISTS (SELECT 1 FROM vote s WHERE s.supersedes = v.id);

-- every pair that a current vote decides: winner over loser, or the two tied (then winner < loser by id)
CREATE VIEW preference AS
WITH placed AS (
    SELECT v.id AS vote_id, v.comparison_id, v.prompt_id, v.annotator_id, v.annotator_kind, v.purpose,
           v.strength, v.display_order, tier.place AS place, unnest(tier.members) AS completion_id
    FROM current_vote v,
         unnest(list_transform(v.ranking, lambda members, place: {'place': place, 'members': members})) AS u(tier)
    WHERE v.verdict IN ('ranked', 'tie')
)
SELECT w.vote_id, w.comparison_id, w.prompt_id, w.annotator_id, w.annotator_kind, w.purpose, w.strength,
       w.completion_id AS winner, l.completion_id AS loser, w.place = l.place AS tie,
       list_position(w.display_order, w.completion_id) < list_position(w.display_order, l.completion_id)
           AS winner_shown_first
FROM placed w
JOIN placed l ON l.vote_id = w.vote_id
WHERE w.place < l.place OR (w.place = l.place AND w.completion_id < l.completion_id);
