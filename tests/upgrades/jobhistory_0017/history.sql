--
-- PostgreSQL database dump
--


-- Dumped from database version 18.4
-- Dumped by pg_dump version 18.4


--
-- Name: job_history_queue_inserted(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.job_history_queue_inserted() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$BEGIN
    INSERT INTO public.job_history_ended (
        task_identifier, status, will_retry, is_lost, weight,
        started_at, completed_at, queue_time_ms, execution_time_ms
    ) VALUES (
        NEW.task_identifier, NEW.status, NEW.will_retry,
        coalesce(NEW.error_type = 'jobhistory.WorkerLost', false), 1,
        NEW.started_at, NEW.completed_at, NEW.queue_time_ms, NEW.execution_time_ms);
    RETURN NULL;
END$$;


--
-- Name: job_history_queue_inserted_many(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.job_history_queue_inserted_many() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$BEGIN
    INSERT INTO public.job_history_ended (
        task_identifier, status, will_retry, is_lost, weight,
        started_at, completed_at, queue_time_ms, execution_time_ms
    ) SELECT
        added.task_identifier, added.status, added.will_retry,
        coalesce(added.error_type = 'jobhistory.WorkerLost', false), 1,
        added.started_at, added.completed_at, added.queue_time_ms, added.execution_time_ms
    FROM added WHERE added.status <> 'started';
    RETURN NULL;
END$$;


--
-- Name: job_history_queue_updated(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.job_history_queue_updated() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$BEGIN
    IF OLD.status = 'started' THEN
        IF NEW.status <> 'started' THEN
            INSERT INTO public.job_history_ended (
        task_identifier, status, will_retry, is_lost, weight,
        started_at, completed_at, queue_time_ms, execution_time_ms
    ) VALUES (
        NEW.task_identifier, NEW.status, NEW.will_retry,
        coalesce(NEW.error_type = 'jobhistory.WorkerLost', false), 1,
        NEW.started_at, NEW.completed_at, NEW.queue_time_ms, NEW.execution_time_ms);
        END IF;
    ELSIF NEW.status <> OLD.status
        OR NEW.will_retry IS DISTINCT FROM OLD.will_retry
        OR NEW.error_type IS DISTINCT FROM OLD.error_type
        OR NEW.task_identifier <> OLD.task_identifier
        OR NEW.started_at <> OLD.started_at THEN
        INSERT INTO public.job_history_ended (
        task_identifier, status, will_retry, is_lost, weight,
        started_at, completed_at, queue_time_ms, execution_time_ms
    ) VALUES (
        OLD.task_identifier, OLD.status, OLD.will_retry,
        coalesce(OLD.error_type = 'jobhistory.WorkerLost', false), -1,
        OLD.started_at, NULL, NULL, NULL);
        IF NEW.status <> 'started' THEN
            INSERT INTO public.job_history_ended (
        task_identifier, status, will_retry, is_lost, weight,
        started_at, completed_at, queue_time_ms, execution_time_ms
    ) VALUES (
        NEW.task_identifier, NEW.status, NEW.will_retry,
        coalesce(NEW.error_type = 'jobhistory.WorkerLost', false), 1,
        NEW.started_at, NEW.completed_at,
        CASE WHEN OLD.queue_time_ms IS NULL THEN NEW.queue_time_ms END,
        CASE WHEN OLD.execution_time_ms IS NULL THEN NEW.execution_time_ms END);
        END IF;
    END IF;
    RETURN NULL;
END$$;




--
-- Name: job_history; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.job_history (
    id uuid NOT NULL,
    job_id character varying(255) NOT NULL,
    correlation_id character varying(255) NOT NULL,
    parent_id uuid,
    trace_id character varying(32),
    span_id character varying(16),
    task_identifier character varying(255) NOT NULL,
    worker_id character varying(255) NOT NULL,
    status character varying(32) NOT NULL,
    attempt_number integer NOT NULL,
    labels jsonb,
    payload jsonb,
    payload_is_exact boolean,
    started_at timestamp with time zone NOT NULL,
    completed_at timestamp with time zone,
    queue_time_ms bigint,
    execution_time_ms bigint,
    heartbeat_at timestamp with time zone,
    progress double precision,
    expires_at timestamp with time zone,
    will_retry boolean,
    error_type character varying(255),
    error_message text,
    error_stack text,
    completed_steps jsonb,
    failed_steps jsonb,
    retry_from_step text,
    partial_results jsonb,
    result jsonb,
    log_tail text,
    CONSTRAINT ck_job_history_status CHECK (((status)::text = ANY ((ARRAY['started'::character varying, 'completed'::character varying, 'failed'::character varying, 'partial_success'::character varying, 'cancelled'::character varying])::text[])))
)
WITH (fillfactor='80');


--
-- Name: job_history_alembic_version; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.job_history_alembic_version (
    version_num character varying(32) NOT NULL
);


--
-- Name: job_history_archive; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.job_history_archive (
    location text NOT NULL,
    file text NOT NULL,
    day date NOT NULL,
    row_count bigint NOT NULL,
    byte_count bigint NOT NULL,
    digest character varying(64) NOT NULL,
    file_digest character varying(64) NOT NULL,
    first_started_at timestamp with time zone,
    last_started_at timestamp with time zone,
    archived_at timestamp with time zone NOT NULL,
    pending text,
    published_at timestamp with time zone
);


--
-- Name: job_history_ended; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.job_history_ended (
    task_identifier character varying(255) NOT NULL,
    status character varying(32) NOT NULL,
    will_retry boolean,
    is_lost boolean DEFAULT false NOT NULL,
    is_stored boolean DEFAULT true NOT NULL,
    weight smallint DEFAULT '1'::smallint NOT NULL,
    started_at timestamp with time zone NOT NULL,
    completed_at timestamp with time zone,
    queue_time_ms bigint,
    execution_time_ms bigint
);

ALTER TABLE ONLY public.job_history_ended REPLICA IDENTITY FULL;


--
-- Name: job_history_expectation; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.job_history_expectation (
    name character varying(255) NOT NULL,
    task_identifier character varying(255) NOT NULL,
    definition jsonb NOT NULL,
    source character varying(255),
    declared_at timestamp with time zone NOT NULL,
    checked_at timestamp with time zone
);


--
-- Name: job_history_incident; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.job_history_incident (
    id uuid NOT NULL,
    expectation character varying(255) NOT NULL,
    task_identifier character varying(255) NOT NULL,
    problem character varying(32) NOT NULL,
    summary text NOT NULL,
    slots jsonb NOT NULL,
    executions jsonb NOT NULL,
    opened_at timestamp with time zone NOT NULL,
    seen_at timestamp with time zone NOT NULL,
    closed_at timestamp with time zone,
    notified character varying(8),
    notified_at timestamp with time zone,
    claimed_until timestamp with time zone
);


--
-- Name: job_history_rollup; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.job_history_rollup (
    span character varying(5) NOT NULL,
    task_identifier character varying(255) NOT NULL,
    bucket timestamp with time zone NOT NULL,
    completed bigint DEFAULT '0'::bigint NOT NULL,
    failed bigint DEFAULT '0'::bigint NOT NULL,
    partial_success bigint DEFAULT '0'::bigint NOT NULL,
    cancelled bigint DEFAULT '0'::bigint NOT NULL,
    retried bigint DEFAULT '0'::bigint NOT NULL,
    lost bigint DEFAULT '0'::bigint NOT NULL,
    lost_retried bigint DEFAULT '0'::bigint NOT NULL,
    unstored bigint DEFAULT '0'::bigint NOT NULL,
    last_started_at timestamp with time zone,
    last_completed_at timestamp with time zone,
    last_failed_at timestamp with time zone,
    last_lost_at timestamp with time zone,
    execution_time_sum bigint DEFAULT '0'::bigint NOT NULL,
    execution_time_max bigint,
    execution_times bytea,
    queue_time_sum bigint DEFAULT '0'::bigint NOT NULL,
    queue_time_max bigint,
    queue_times bytea
);


--
-- Name: job_history_state; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.job_history_state (
    name character varying(255) NOT NULL,
    value text NOT NULL
);


--
-- Data for Name: job_history; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.job_history VALUES ('014c7a00-9200-7000-8000-000000000001', 'expired', 'request-1', NULL, NULL, NULL, 'send_email', 'worker-ä', 'completed', 1, NULL, NULL, true, '2015-04-02 12:00:00+00', '2015-04-02 12:00:00+00', NULL, 12, NULL, NULL, '2015-05-02 12:00:00+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014c7a00-9200-7000-8000-000000000002', 'expired-and-lost', 'request-2', NULL, NULL, NULL, 'send_email', 'worker-ä', 'started', 1, NULL, NULL, true, '2015-04-02 12:00:00+00', NULL, NULL, NULL, NULL, NULL, '2015-05-02 12:00:00+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014d7b7e-8a00-7000-8000-000000000004', 'lost', 'request-0', NULL, NULL, NULL, 'import', 'dead', 'started', 1, NULL, '{"file": "a.csv"}', true, '2015-05-22 12:00:00+00', NULL, NULL, NULL, NULL, NULL, '2015-06-21 12:00:00+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014d7b7e-8a00-7000-8000-000000000003', 'reaped', 'request-3', NULL, NULL, NULL, 'import', 'reaped', 'failed', 1, NULL, NULL, true, '2015-05-22 12:00:00+00', '2015-05-23 12:00:00+00', NULL, NULL, NULL, NULL, '2015-06-21 12:00:00+00', NULL, 'jobhistory.WorkerLost', 'no outcome since it started at 2015-05-22T12:00:00Z; its worker is presumed lost', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014daab3-8000-7000-8000-00000000000a', 'failed-10', 'request-2', NULL, NULL, NULL, 'rechnung_drucken', 'worker-ä', 'failed', 10, NULL, '{"nr": 10}', true, '2015-05-31 16:00:00+00', '2015-05-31 16:00:02+00', NULL, 2000, NULL, NULL, '2015-06-30 16:00:00+00', NULL, 'ZeroDivisionError', 'division by zero', 'Traceback (most recent call last):
  File "app/reports.py", line 1, in <module>
ZeroDivisionError: division by zero
', NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014daaea-6e80-7000-8000-00000000000b', 'failed-11', 'request-3', NULL, NULL, NULL, 'rechnung_drucken', 'worker-ä', 'failed', 11, NULL, '{"nr": 11}', true, '2015-05-31 17:00:00+00', '2015-05-31 17:00:02+00', NULL, 2000, NULL, NULL, '2015-06-30 17:00:00+00', NULL, 'Error', 'Zeitüberschreitung: 30 s', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014dab21-5d00-7000-8000-00000000000c', 'failed-12', 'request-0', NULL, NULL, NULL, 'rechnung_drucken', 'worker-ä', 'failed', 12, NULL, '{"nr": 12}', true, '2015-05-31 18:00:00+00', '2015-05-31 18:00:02+00', NULL, 2000, NULL, NULL, '2015-06-30 18:00:00+00', NULL, 'ZeroDivisionError', 'division by zero', 'Traceback (most recent call last):
  File "app/reports.py", line 1, in <module>
ZeroDivisionError: division by zero
', NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014dab21-64d0-7000-8000-00000000000d', 'retried', 'request-1', NULL, NULL, NULL, 'import', 'worker-ä', 'failed', 2, NULL, NULL, true, '2015-05-31 18:00:02+00', '2015-05-31 18:00:02+00', NULL, 0, NULL, NULL, '2015-06-30 18:00:02+00', true, 'Error', 'no disk', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014dae59-5680-7000-8000-000000000014', 'partial', 'request-0', NULL, NULL, NULL, 'import', 'worker-ä', 'partial_success', 1, NULL, '{"files": 3}', true, '2015-06-01 09:00:00+00', '2015-06-01 09:00:00+00', NULL, 1500, NULL, NULL, '2015-07-01 09:00:00+00', NULL, NULL, NULL, NULL, '["download", "größe prüfen"]', '["upload"]', 'upload', '{"": "an empty key", "deep": [[[[{"a": {"b": [{"c": null}]}}]]]], "empty": ["", [], {}, null], "truth": [true, false], "floats": [0.1, -1.5, 0.0000001, 123456.789], "control": "\u0001 \u001f   ", "escapes": "quote '' double \" backslash \\ newline \n tab \t percent %s colon :name", "größe": "ÄÖÜ ß 漢字 עברית 🙈 é", "integers": [0, -1, 2147483648, 9007199254740993, -9223372036854775808, 1180591620717411303424]}', NULL, NULL);
INSERT INTO public.job_history VALUES ('014daefe-1e24-7000-8000-00000000001e', 'payload-30', 'request-2', NULL, NULL, NULL, 'send_email', 'worker-ä', 'completed', 1, NULL, '{"": "an empty key", "deep": [[[[{"a": {"b": [{"c": null}]}}]]]], "empty": ["", [], {}, null], "truth": [true, false], "floats": [0.1, -1.5, 0.0000001, 123456.789], "control": "\u0001 \u001f   ", "escapes": "quote '' double \" backslash \\ newline \n tab \t percent %s colon :name", "größe": "ÄÖÜ ß 漢字 עברית 🙈 é", "integers": [0, -1, 2147483648, 9007199254740993, -9223372036854775808, 1180591620717411303424]}', true, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12, NULL, NULL, '2015-07-01 11:59:59.012346+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014daefe-1e24-7000-8000-00000000001f', 'payload-31', 'request-3', NULL, NULL, NULL, 'send_email', 'worker-ä', 'completed', 1, NULL, NULL, true, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12, NULL, NULL, '2015-07-01 11:59:59.012346+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014daefe-1e24-7000-8000-000000000020', 'payload-32', 'request-0', NULL, NULL, NULL, 'send_email', 'worker-ä', 'completed', 1, NULL, '0', true, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12, NULL, NULL, '2015-07-01 11:59:59.012346+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014daefe-1e24-7000-8000-000000000021', 'payload-33', 'request-1', NULL, NULL, NULL, 'send_email', 'worker-ä', 'completed', 1, NULL, '-1.5', true, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12, NULL, NULL, '2015-07-01 11:59:59.012346+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014daefe-1e24-7000-8000-000000000022', 'payload-34', 'request-2', NULL, NULL, NULL, 'send_email', 'worker-ä', 'completed', 1, NULL, '""', true, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12, NULL, NULL, '2015-07-01 11:59:59.012346+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014daefe-1e24-7000-8000-000000000023', 'payload-35', 'request-3', NULL, NULL, NULL, 'send_email', 'worker-ä', 'completed', 1, NULL, '"text"', true, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12, NULL, NULL, '2015-07-01 11:59:59.012346+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014daefe-1e24-7000-8000-000000000024', 'payload-36', 'request-0', NULL, NULL, NULL, 'send_email', 'worker-ä', 'completed', 1, NULL, 'false', true, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12, NULL, NULL, '2015-07-01 11:59:59.012346+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014daefe-1e24-7000-8000-000000000025', 'payload-37', 'request-1', NULL, NULL, NULL, 'send_email', 'worker-ä', 'completed', 1, NULL, '[]', true, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12, NULL, NULL, '2015-07-01 11:59:59.012346+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014daefe-1e24-7000-8000-000000000026', 'payload-38', 'request-2', NULL, NULL, NULL, 'send_email', 'worker-ä', 'completed', 1, NULL, '{}', true, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12, NULL, NULL, '2015-07-01 11:59:59.012346+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014daefe-1e24-7000-8000-000000000027', 'payload-39', 'request-3', NULL, NULL, NULL, 'send_email', 'worker-ä', 'completed', 1, NULL, '[null]', true, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12, NULL, NULL, '2015-07-01 11:59:59.012346+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014daefe-1e24-7000-8000-000000000028', 'payload-40', 'request-0', NULL, NULL, NULL, 'send_email', 'worker-ä', 'completed', 1, NULL, '{"a": null}', true, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12, NULL, NULL, '2015-07-01 11:59:59.012346+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014daefe-1e24-7000-8000-000000000032', 'üüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüü', 'request-2', NULL, NULL, NULL, 'üüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüü', 'üüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüü', 'completed', 1, NULL, NULL, true, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12, NULL, NULL, '2015-07-01 11:59:59.012346+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014daefe-1e24-7000-8000-000000000033', 'forever', 'request-3', NULL, NULL, NULL, 'keep', 'worker-ä', 'completed', 1, NULL, NULL, true, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014daefe-1e24-7000-8000-000000000034', 'result', 'request-1', '014daefe-2200-7000-8000-00000000003d', '4bf92f3577b34da6a3ce929d0e0e4736', '00f067aa0ba902b7', 'import', 'worker-ä', 'completed', 1, '{"empty": "", "tenant": "größe"}', '[1]', true, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.024346+00', NULL, 12, '2015-06-01 11:59:59.012346+00', 0.7, '2015-07-01 11:59:59.012346+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '{"": "an empty key", "deep": [[[[{"a": {"b": [{"c": null}]}}]]]], "empty": ["", [], {}, null], "truth": [true, false], "floats": [0.1, -1.5, 0.0000001, 123456.789], "control": "\u0001 \u001f   ", "escapes": "quote '' double \" backslash \\ newline \n tab \t percent %s colon :name", "größe": "ÄÖÜ ß 漢字 עברית 🙈 é", "integers": [0, -1, 2147483648, 9007199254740993, -9223372036854775808, 1180591620717411303424]}', 'ä
b');
INSERT INTO public.job_history VALUES ('014daefe-1e24-7000-8000-000000000035', 'cancelled', 'request-2', NULL, NULL, NULL, 'import', 'worker-ä', 'cancelled', 1, NULL, NULL, NULL, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 0, NULL, NULL, '2015-07-01 11:59:59.012346+00', NULL, NULL, 'größer', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014daefe-2200-7000-8000-00000000003c', 'running', 'request-0', NULL, NULL, NULL, 'send_email', 'worker-ä', 'started', 2, NULL, '["running"]', true, '2015-06-01 12:00:00+00', NULL, 250, NULL, NULL, NULL, '2015-07-01 12:00:00+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014daefe-2200-7000-8000-00000000003d', 'waiting', 'request-1', NULL, NULL, NULL, 'send_email', 'worker-ä', 'started', 2, NULL, '["waiting"]', true, '2015-06-01 12:00:00+00', NULL, 250, NULL, NULL, NULL, '2015-07-01 12:00:00+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);


--
-- Data for Name: job_history_alembic_version; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.job_history_alembic_version VALUES ('jobhistory_0017');


--
-- Data for Name: job_history_archive; Type: TABLE DATA; Schema: public; Owner: -
--



--
-- Data for Name: job_history_ended; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.job_history_ended VALUES ('send_email', 'completed', NULL, false, true, 1, '2015-04-02 12:00:00+00', '2015-04-02 12:00:00+00', NULL, 12);
INSERT INTO public.job_history_ended VALUES ('import', 'failed', NULL, true, true, 1, '2015-05-22 12:00:00+00', '2015-05-23 12:00:00+00', NULL, NULL);
INSERT INTO public.job_history_ended VALUES ('rechnung_drucken', 'failed', NULL, false, true, 1, '2015-05-31 16:00:00+00', '2015-05-31 16:00:02+00', NULL, 2000);
INSERT INTO public.job_history_ended VALUES ('rechnung_drucken', 'failed', NULL, false, true, 1, '2015-05-31 17:00:00+00', '2015-05-31 17:00:02+00', NULL, 2000);
INSERT INTO public.job_history_ended VALUES ('rechnung_drucken', 'failed', NULL, false, true, 1, '2015-05-31 18:00:00+00', '2015-05-31 18:00:02+00', NULL, 2000);
INSERT INTO public.job_history_ended VALUES ('import', 'failed', true, false, true, 1, '2015-05-31 18:00:02+00', '2015-05-31 18:00:02+00', NULL, 0);
INSERT INTO public.job_history_ended VALUES ('import', 'partial_success', NULL, false, true, 1, '2015-06-01 09:00:00+00', '2015-06-01 09:00:00+00', NULL, 1500);
INSERT INTO public.job_history_ended VALUES ('send_email', 'completed', NULL, false, true, 1, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12);
INSERT INTO public.job_history_ended VALUES ('send_email', 'completed', NULL, false, true, 1, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12);
INSERT INTO public.job_history_ended VALUES ('send_email', 'completed', NULL, false, true, 1, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12);
INSERT INTO public.job_history_ended VALUES ('send_email', 'completed', NULL, false, true, 1, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12);
INSERT INTO public.job_history_ended VALUES ('send_email', 'completed', NULL, false, true, 1, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12);
INSERT INTO public.job_history_ended VALUES ('send_email', 'completed', NULL, false, true, 1, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12);
INSERT INTO public.job_history_ended VALUES ('send_email', 'completed', NULL, false, true, 1, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12);
INSERT INTO public.job_history_ended VALUES ('send_email', 'completed', NULL, false, true, 1, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12);
INSERT INTO public.job_history_ended VALUES ('send_email', 'completed', NULL, false, true, 1, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12);
INSERT INTO public.job_history_ended VALUES ('send_email', 'completed', NULL, false, true, 1, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12);
INSERT INTO public.job_history_ended VALUES ('send_email', 'completed', NULL, false, true, 1, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12);
INSERT INTO public.job_history_ended VALUES ('üüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüü', 'completed', NULL, false, true, 1, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12);
INSERT INTO public.job_history_ended VALUES ('keep', 'completed', NULL, false, true, 1, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12);
INSERT INTO public.job_history_ended VALUES ('import', 'completed', NULL, false, true, 1, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.024346+00', NULL, 12);
INSERT INTO public.job_history_ended VALUES ('import', 'cancelled', NULL, false, true, 1, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 0);


--
-- Data for Name: job_history_expectation; Type: TABLE DATA; Schema: public; Owner: -
--



--
-- Data for Name: job_history_incident; Type: TABLE DATA; Schema: public; Owner: -
--



--
-- Data for Name: job_history_rollup; Type: TABLE DATA; Schema: public; Owner: -
--



--
-- Data for Name: job_history_state; Type: TABLE DATA; Schema: public; Owner: -
--



--
-- Name: job_history_alembic_version job_history_alembic_version_pkc; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.job_history_alembic_version
    ADD CONSTRAINT job_history_alembic_version_pkc PRIMARY KEY (version_num);


--
-- Name: job_history pk_job_history; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.job_history
    ADD CONSTRAINT pk_job_history PRIMARY KEY (id);


--
-- Name: job_history_archive pk_job_history_archive; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.job_history_archive
    ADD CONSTRAINT pk_job_history_archive PRIMARY KEY (location, file);


--
-- Name: job_history_expectation pk_job_history_expectation; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.job_history_expectation
    ADD CONSTRAINT pk_job_history_expectation PRIMARY KEY (name);


--
-- Name: job_history_incident pk_job_history_incident; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.job_history_incident
    ADD CONSTRAINT pk_job_history_incident PRIMARY KEY (id);


--
-- Name: job_history_rollup pk_job_history_rollup; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.job_history_rollup
    ADD CONSTRAINT pk_job_history_rollup PRIMARY KEY (span, task_identifier, bucket);


--
-- Name: job_history_state pk_job_history_state; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.job_history_state
    ADD CONSTRAINT pk_job_history_state PRIMARY KEY (name);


--
-- Name: ix_job_history_archive_unpublished; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_job_history_archive_unpublished ON public.job_history_archive USING btree (location) WHERE (published_at IS NULL);


--
-- Name: ix_job_history_correlation_id_started_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_job_history_correlation_id_started_at ON public.job_history USING btree (correlation_id, started_at NULLS FIRST, id);


--
-- Name: ix_job_history_error_type_started_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_job_history_error_type_started_at ON public.job_history USING btree (error_type, started_at, id) WHERE (error_type IS NOT NULL);


--
-- Name: ix_job_history_expires_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_job_history_expires_at ON public.job_history USING btree (expires_at);


--
-- Name: ix_job_history_failed_started_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_job_history_failed_started_at ON public.job_history USING btree (started_at NULLS FIRST, id) WHERE (error_type IS NOT NULL);


--
-- Name: ix_job_history_failed_task_identifier_started_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_job_history_failed_task_identifier_started_at ON public.job_history USING btree (task_identifier, started_at, id) WHERE (error_type IS NOT NULL);


--
-- Name: ix_job_history_incident_open; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX ix_job_history_incident_open ON public.job_history_incident USING btree (expectation, problem) WHERE (closed_at IS NULL);


--
-- Name: ix_job_history_incident_opened_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_job_history_incident_opened_at ON public.job_history_incident USING btree (opened_at);


--
-- Name: ix_job_history_job_id_started_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_job_history_job_id_started_at ON public.job_history USING btree (job_id, started_at NULLS FIRST, id);


--
-- Name: ix_job_history_partial_started_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_job_history_partial_started_at ON public.job_history USING btree (started_at NULLS FIRST, id) WHERE (failed_steps IS NOT NULL);


--
-- Name: ix_job_history_partial_task_identifier_started_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_job_history_partial_task_identifier_started_at ON public.job_history USING btree (task_identifier, started_at, id) WHERE (failed_steps IS NOT NULL);


--
-- Name: ix_job_history_rollup_bucket; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_job_history_rollup_bucket ON public.job_history_rollup USING btree (span, bucket);


--
-- Name: ix_job_history_started_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_job_history_started_at ON public.job_history USING btree (started_at, id);


--
-- Name: ix_job_history_status; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_job_history_status ON public.job_history USING brin (status) WITH (pages_per_range='8', autosummarize='on');


--
-- Name: ix_job_history_task_identifier_started_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_job_history_task_identifier_started_at ON public.job_history USING btree (task_identifier, started_at NULLS FIRST, id);


--
-- Name: ix_job_history_worker_id_started_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_job_history_worker_id_started_at ON public.job_history USING btree (worker_id, started_at NULLS FIRST, id);


--
-- Name: job_history job_history_inserted; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER job_history_inserted AFTER INSERT ON public.job_history FOR EACH ROW WHEN ((((new.status)::text <> 'started'::text) AND (current_setting('jobhistory.bulk'::text, true) IS DISTINCT FROM 'on'::text))) EXECUTE FUNCTION public.job_history_queue_inserted();


--
-- Name: job_history job_history_inserted_many; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER job_history_inserted_many AFTER INSERT ON public.job_history REFERENCING NEW TABLE AS added FOR EACH STATEMENT WHEN ((current_setting('jobhistory.bulk'::text, true) = 'on'::text)) EXECUTE FUNCTION public.job_history_queue_inserted_many();


--
-- Name: job_history job_history_updated; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER job_history_updated AFTER UPDATE OF status, will_retry, error_type, task_identifier, started_at ON public.job_history FOR EACH ROW EXECUTE FUNCTION public.job_history_queue_updated();


--
-- PostgreSQL database dump complete
--


