-- Votes as small numbers, for statistics: a DuckDB file of its own beside the project's, derived from it, made anew
-- whenever it doesn't fit. Codes are dense and in order of arrival. See facts.py.

CREATE TABLE annotator (code INTEGER, id VARCHAR, name VARCHAR, kind VARCHAR, role VARCHAR);
CREATE TABLE model (code INTEGER, name VARCHAR);
CREATE TABLE source (code INTEGER, name VARCHAR);

-- one row per comparison that has a vote
CREATE TABLE item (
    code INTEGER,
    id VARCHAR,                 -- comparison.id
    prompt VARCHAR,             -- prompt.id
    source INTEGER,
    purpose VARCHAR,            -- train | random | gold | repeat | eval
    strategy VARCHAR,
    answers TINYINT,            -- 2..9
    models INTEGER[],           -- of its completions, in the order of their ids
    repeats VARCHAR,            -- the comparison.id that this one shows again to one annotator, or NULL
    root INTEGER,               -- the item that it repeats, or itself
    first_unit INTEGER          -- its units follow each other: (1, 2), (1, 3), .., (2, 3), .. by order of completion ids
);

CREATE TABLE item_tag (item INTEGER, tag VARCHAR); -- tags of the item's prompt

-- one row per pair of completions of an item; a < b by completion id
CREATE TABLE unit (
    code INTEGER,
    item INTEGER,
    a VARCHAR,
    b VARCHAR,
    model_a INTEGER,
    model_b INTEGER,
    -- of a minus of b over their sum + 1, in -1..1 (0: alike): characters, Markdown headers, list items, bold spans
    length REAL,
    headers REAL,
    lists REAL,
    bold REAL,
    log_length REAL             -- ln((1 + characters of a) / (1 + characters of b))
);

-- one row per current vote
CREATE TABLE ballot (
    vote UBIGINT,               -- hash(vote.id)
    annotator INTEGER,
    item INTEGER,
    kind TINYINT,               -- 0 human, 1 rule, 2 model
    source INTEGER,
    purpose TINYINT,            -- 0 train, 1 random, 2 gold, 3 repeat, 4 eval
    selected BOOLEAN,           -- the comparison was chosen for its expected use, not at random
    again BOOLEAN,              -- the same annotator had already answered this item, or the item that it repeats
    adjudicated BOOLEAN,
    verdict TINYINT,            -- 0 ranked, 1 tie, 2 all_bad, 3 skip
    answers TINYINT,
    visible REAL,               -- seconds; NULL: not measured
    active REAL,
    untouched BOOLEAN,          -- three or more answers were ranked as they were shown; NULL: unknown, or fewer
    rationale BOOLEAN,          -- one was given
    flagged BOOLEAN,
    moment TIMESTAMP,           -- UTC
    day DATE
);

-- one row per pair that a current vote decides (verdicts ranked and tie)
CREATE TABLE judgement (
    vote UBIGINT,
    annotator INTEGER,
    item INTEGER,
    unit INTEGER,
    model_a INTEGER,            -- as in the unit: grouping by models needs no join
    model_b INTEGER,
    kind TINYINT,
    source INTEGER,
    purpose TINYINT,
    selected BOOLEAN,
    again BOOLEAN,
    adjudicated BOOLEAN,
    -- -3..3: the strength by which a is better (b: negative), 0 a tie; 4 and -4: better, by an unknown strength
    grade TINYINT,
    a_first BOOLEAN,            -- a was shown before b; NULL: unknown
    of TINYINT,                 -- pairs that this vote decides: each weighs 1 / of
    day DATE
);

-- one row per vote that ranks three or more completions
CREATE TABLE ranking (
    vote UBIGINT,
    annotator INTEGER,
    item INTEGER,
    kind TINYINT,
    source INTEGER,
    purpose TINYINT,
    selected BOOLEAN,
    again BOOLEAN,
    adjudicated BOOLEAN,
    places TINYINT[],           -- by completion, in the order of their ids: 1 = best, equal = tied, NULL = not ranked
    models INTEGER[],           -- by completion, in the same order
    day DATE
);

CREATE TABLE state (
    schema VARCHAR,             -- digest of this file and of the queries that fill it
    mark BIGINT,                -- rowid of the last vote that was taken in
    votes BIGINT,               -- votes up to there
    last VARCHAR,               -- hash of its id
    tags VARCHAR,               -- digests of what may change
    annotators VARCHAR,
    changes BIGINT              -- how often anything here has changed
);
