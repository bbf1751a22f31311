-- Review: adjudicated votes are marked, and saved views say which votes training takes. Landed migrations are
-- never edited.

DROP VIEW preference;
DROP VIEW current_vote;

-- a lead's decision after seeing how others voted: never part of agreement; NULL and false: an ordinary vote
ALTER TABLE vote ADD COLUMN adjudicated BOOLEAN;

CREATE TABLE training_view (
    name VARCHAR PRIMARY KEY,
    definition VARCHAR NOT NULL,            -- JSON: aggregation and filters
    weights VARCHAR,                        -- JSON: annotator id -> weight; set when weighted by reliability
    created_by VARCHAR,
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

-- every pair that a current vote decides: winner over loser, or the two tied (then winner < loser by id). Not a join
-- of the ranking with itself: under a LIMIT that waits forever (DuckDB 2.0)
CREATE VIEW preference AS
SELECT v.id AS vote_id, v.comparison_id, v.prompt_id, v.annotator_id, v.annotator_kind, v.purpose, v.strength,
       v.adjudicated, pair.winner, pair.loser, pair.tie,
       list_position(v.display_order, pair.winner) < list_position(v.display_order, pair.loser) AS winner_shown_first
FROM current_vote v, unnest(list_concat(
    flatten(list_transform(v.ranking, lambda tier, place: flatten(list_transform(tier, lambda one:
        list_transform(flatten(v.ranking[place + 1:]), lambda other:
            {'winner': one, 'loser': other, 'tie': false}))))),
    flatten(list_transform(v.ranking, lambda tier: flatten(list_transform(tier, lambda one:
        list_transform(list_filter(tier, lambda other: other > one), lambda other:
            {'winner': one, 'loser': other, 'tie': true})))))
)) AS u(pair)
WHERE v.verdict IN ('ranked', 'tie');
