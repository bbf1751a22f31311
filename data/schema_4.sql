-- Reward: frozen features of completions, from which the labeling server learns between two votes. Landed migrations
-- are never edited.

CREATE TABLE feature (
    completion_id VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,                -- the run that made it: vectors of different runs don't compare
    vector FLOAT[] NOT NULL,
    PRIMARY KEY (completion_id, run_id)
);
