-- the schema of version 3: attempts that can be gone on from, packed folders

CREATE TABLE meta (
    "key" VARCHAR NOT NULL,
    value VARCHAR NOT NULL,
    PRIMARY KEY ("key")
);

CREATE TABLE pilots (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    state VARCHAR NOT NULL CHECK (state IN ('active', 'draining', 'ended', 'lost')),
    host VARCHAR NOT NULL,
    pid INTEGER NOT NULL,
    job_id VARCHAR,
    started_at FLOAT NOT NULL,
    ended_at FLOAT,
    reason VARCHAR DEFAULT '' NOT NULL,
    seen_at FLOAT,
    nodes JSON DEFAULT '{}' NOT NULL,
    reserved_core_s FLOAT DEFAULT '0' NOT NULL
);

CREATE TABLE generations (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    stage INTEGER NOT NULL,
    number INTEGER NOT NULL,
    started_at FLOAT NOT NULL,
    ended_at FLOAT,
    outcome VARCHAR DEFAULT '' NOT NULL,
    facts JSON NOT NULL,
    UNIQUE (stage, number)
);

CREATE TABLE requests (
    id VARCHAR NOT NULL,
    at FLOAT NOT NULL,
    verb VARCHAR NOT NULL,
    answer JSON NOT NULL,
    PRIMARY KEY (id)
);

CREATE TABLE tasks (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    "key" VARCHAR,
    kind VARCHAR NOT NULL CHECK (kind IN ('explore', 'select', 'label', 'train', 'evaluate', 'command')),
    engine VARCHAR NOT NULL,
    name VARCHAR NOT NULL,
    state VARCHAR NOT NULL CHECK (state IN ('waiting', 'ready', 'running', 'done', 'failed', 'cancelled')),
    spec JSON NOT NULL,
    priority INTEGER NOT NULL,
    ranks INTEGER NOT NULL CHECK (ranks >= 1),
    threads INTEGER NOT NULL CHECK (threads >= 1),
    gpus INTEGER NOT NULL CHECK (gpus >= 0),
    memory_mb INTEGER NOT NULL CHECK (memory_mb >= 0),
    size INTEGER NOT NULL,
    time_request_s FLOAT,
    time_limit_s FLOAT,
    generation INTEGER,
    added_at FLOAT NOT NULL,
    tries JSON NOT NULL,
    nodes INTEGER DEFAULT '1' NOT NULL CHECK (nodes >= 1),
    UNIQUE ("key"),
    FOREIGN KEY(generation) REFERENCES generations (id)
);

CREATE INDEX tasks_by_generation ON tasks (generation, kind);

CREATE INDEX tasks_by_state ON tasks (state);

CREATE TABLE structures (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    hash VARCHAR NOT NULL,
    atoms INTEGER NOT NULL,
    role VARCHAR NOT NULL CHECK (role IN ('train', 'holdout', 'eos')),
    source VARCHAR NOT NULL,
    generation INTEGER,
    grade FLOAT,
    data JSON NOT NULL,
    UNIQUE (hash),
    FOREIGN KEY(generation) REFERENCES generations (id)
);

CREATE TABLE edges (
    child INTEGER NOT NULL,
    parent INTEGER NOT NULL,
    kind VARCHAR NOT NULL CHECK (kind IN ('done', 'ended')),
    PRIMARY KEY (child, parent),
    CHECK (child <> parent),
    FOREIGN KEY(child) REFERENCES tasks (id),
    FOREIGN KEY(parent) REFERENCES tasks (id)
);

CREATE INDEX edges_by_parent ON edges (parent);

CREATE TABLE attempts (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    task_id INTEGER NOT NULL,
    pilot_id INTEGER NOT NULL,
    number INTEGER NOT NULL,
    node VARCHAR NOT NULL,
    cores JSON NOT NULL,
    gpus JSON NOT NULL,
    directory VARCHAR NOT NULL,
    started_at FLOAT NOT NULL,
    ended_at FLOAT,
    verdict VARCHAR CHECK (verdict IN ('done', 'not converged', 'interrupted', 'crashed', 'out of memory', 'timeout', 'bad input', 'infrastructure', 'cancelled')),
    reason VARCHAR DEFAULT '' NOT NULL,
    exit_code INTEGER,
    signal INTEGER,
    wall_s FLOAT,
    cpu_s FLOAT,
    peak_mb FLOAT,
    facts JSON NOT NULL,
    others JSON DEFAULT '[]' NOT NULL,
    resumable INTEGER DEFAULT '0' NOT NULL,
    archive VARCHAR DEFAULT '' NOT NULL,
    files INTEGER DEFAULT '0' NOT NULL,
    bytes INTEGER DEFAULT '0' NOT NULL,
    UNIQUE (task_id, number),
    CHECK ((ended_at IS NULL) = (verdict IS NULL)),
    FOREIGN KEY(task_id) REFERENCES tasks (id),
    FOREIGN KEY(pilot_id) REFERENCES pilots (id),
    UNIQUE (directory)
);

CREATE UNIQUE INDEX one_running_attempt ON attempts (task_id) WHERE ended_at IS NULL;

CREATE TABLE events (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    at FLOAT NOT NULL,
    pilot_id INTEGER,
    task_id INTEGER,
    event VARCHAR NOT NULL,
    detail VARCHAR DEFAULT '' NOT NULL,
    FOREIGN KEY(task_id) REFERENCES tasks (id)
);

CREATE INDEX events_by_task ON events (task_id);

CREATE TABLE labels (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    structure_id INTEGER NOT NULL,
    settings VARCHAR NOT NULL,
    attempt_id INTEGER,
    added_at FLOAT NOT NULL,
    data JSON NOT NULL,
    UNIQUE (structure_id, settings),
    FOREIGN KEY(structure_id) REFERENCES structures (id),
    UNIQUE (attempt_id),
    FOREIGN KEY(attempt_id) REFERENCES attempts (id)
);

CREATE TABLE potentials (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    generation INTEGER NOT NULL,
    path VARCHAR NOT NULL,
    attempt_id INTEGER NOT NULL,
    facts JSON NOT NULL,
    added_at FLOAT NOT NULL,
    UNIQUE (generation),
    FOREIGN KEY(generation) REFERENCES generations (id),
    UNIQUE (attempt_id),
    FOREIGN KEY(attempt_id) REFERENCES attempts (id)
);

CREATE TRIGGER legal_transition BEFORE UPDATE OF state ON tasks WHEN NOT ((OLD.state = 'cancelled' AND NEW.state = 'waiting') OR (OLD.state = 'failed' AND NEW.state = 'waiting') OR (OLD.state = 'ready' AND NEW.state = 'cancelled') OR (OLD.state = 'ready' AND NEW.state = 'running') OR (OLD.state = 'ready' AND NEW.state = 'waiting') OR (OLD.state = 'running' AND NEW.state = 'cancelled') OR (OLD.state = 'running' AND NEW.state = 'done') OR (OLD.state = 'running' AND NEW.state = 'failed') OR (OLD.state = 'running' AND NEW.state = 'ready') OR (OLD.state = 'waiting' AND NEW.state = 'cancelled') OR (OLD.state = 'waiting' AND NEW.state = 'ready')) BEGIN SELECT RAISE(ABORT, 'illegal transition of a task'); END;

CREATE TRIGGER events_stay BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;

CREATE TRIGGER events_remain BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;

PRAGMA user_version = 3;
