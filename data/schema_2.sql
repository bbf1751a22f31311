-- The annotators' app: people with roles, sessions and tokens, guidelines, and what a vote and a comparison
-- gained. Secrets are stored as hashes only. Landed migrations are never edited.

DROP VIEW preference;
DROP VIEW current_vote;

ALTER TABLE vote ADD COLUMN reason VARCHAR;             -- why an item was skipped
ALTER TABLE comparison ADD COLUMN reserved_for VARCHAR; -- only this annotator is asked (live, hidden repeats)
ALTER TABLE comparison ADD COLUMN repeats VARCHAR;      -- the comparison that this one shows again

CREATE TABLE account (
    annotator_id VARCHAR PRIMARY KEY,       -- the role stands in annotator.role
    password VARCHAR,                       -- scrypt$n$r$p$salt$hash; NULL: can't log in with a password
    active BOOLEAN NOT NULL,
    created_at TIMESTAMP NOT NULL,
    last_seen TIMESTAMP
);

CREATE TABLE login_session (
    id VARCHAR PRIMARY KEY,                 -- sha256 of the cookie's secret
    annotator_id VARCHAR NOT NULL,
    created_at TIMESTAMP NOT NULL,
    expires_at TIMESTAMP NOT NULL
);

CREATE TABLE access_token (
    id VARCHAR PRIMARY KEY,                 -- sha256 of the token
    annotator_id VARCHAR NOT NULL,
    name VARCHAR NOT NULL,
    created_at TIMESTAMP NOT NULL,
    expires_at TIMESTAMP,
    last_used TIMESTAMP
);

CREATE TABLE invitation (
    id VARCHAR PRIMARY KEY,                 -- sha256 of the link's secret
    role VARCHAR NOT NULL,
    name VARCHAR,                           -- a name the invited person can't change; NULL: they choose
    created_by VARCHAR,
    created_at TIMESTAMP NOT NULL,
    expires_at TIMESTAMP NOT NULL,
    uses_left INTEGER NOT NULL
);

CREATE TABLE guideline (
    version INTEGER PRIMARY KEY,
    text VARCHAR NOT NULL,                  -- Markdown
    created_by VARCHAR,
    created_at TIMESTAMP NOT NULL
);

-- comparisons that are not shown, and why: identity leak, answers that are the same
CREATE TABLE withheld (
    comparison_id VARCHAR PRIMARY KEY,
    reason VARCHAR NOT NULL,                -- identity | duplicate
    detail VARCHAR NOT NULL,
    created_at TIMESTAMP NOT NULL
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
