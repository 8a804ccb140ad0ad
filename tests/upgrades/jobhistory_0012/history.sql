--
-- PostgreSQL database dump
--


-- Dumped from database version 18.4
-- Dumped by pg_dump version 18.4




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
-- Data for Name: job_history; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.job_history VALUES ('014c7a00-9200-7000-8000-000000000001', 'expired', 'request-1', NULL, NULL, NULL, 'send_email', 'worker-ä', 'completed', 1, NULL, NULL, NULL, '2015-04-02 12:00:00+00', '2015-04-02 12:00:00+00', NULL, 12, NULL, NULL, '2015-05-02 12:00:00+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014c7a00-9200-7000-8000-000000000002', 'expired-and-lost', 'request-2', NULL, NULL, NULL, 'send_email', 'worker-ä', 'started', 1, NULL, NULL, NULL, '2015-04-02 12:00:00+00', NULL, NULL, NULL, NULL, NULL, '2015-05-02 12:00:00+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014d7b7e-8a00-7000-8000-000000000004', 'lost', 'request-0', NULL, NULL, NULL, 'import', 'dead', 'started', 1, NULL, '{"file": "a.csv"}', NULL, '2015-05-22 12:00:00+00', NULL, NULL, NULL, NULL, NULL, '2015-06-21 12:00:00+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014d7b7e-8a00-7000-8000-000000000003', 'reaped', 'request-3', NULL, NULL, NULL, 'import', 'reaped', 'failed', 1, NULL, NULL, NULL, '2015-05-22 12:00:00+00', '2015-05-23 12:00:00+00', NULL, NULL, NULL, NULL, '2015-06-21 12:00:00+00', NULL, 'jobhistory.WorkerLost', 'no outcome since it started at 2015-05-22T12:00:00Z; its worker is presumed lost', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014daab3-8000-7000-8000-00000000000a', 'failed-10', 'request-2', NULL, NULL, NULL, 'rechnung_drucken', 'worker-ä', 'failed', 10, NULL, '{"nr": 10}', NULL, '2015-05-31 16:00:00+00', '2015-05-31 16:00:02+00', NULL, 2000, NULL, NULL, '2015-06-30 16:00:00+00', NULL, 'ZeroDivisionError', 'division by zero', 'Traceback (most recent call last):
  File "app/reports.py", line 1, in <module>
ZeroDivisionError: division by zero
', NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014daaea-6e80-7000-8000-00000000000b', 'failed-11', 'request-3', NULL, NULL, NULL, 'rechnung_drucken', 'worker-ä', 'failed', 11, NULL, '{"nr": 11}', NULL, '2015-05-31 17:00:00+00', '2015-05-31 17:00:02+00', NULL, 2000, NULL, NULL, '2015-06-30 17:00:00+00', NULL, 'Error', 'Zeitüberschreitung: 30 s', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014dab21-5d00-7000-8000-00000000000c', 'failed-12', 'request-0', NULL, NULL, NULL, 'rechnung_drucken', 'worker-ä', 'failed', 12, NULL, '{"nr": 12}', NULL, '2015-05-31 18:00:00+00', '2015-05-31 18:00:02+00', NULL, 2000, NULL, NULL, '2015-06-30 18:00:00+00', NULL, 'ZeroDivisionError', 'division by zero', 'Traceback (most recent call last):
  File "app/reports.py", line 1, in <module>
ZeroDivisionError: division by zero
', NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014dab21-64d0-7000-8000-00000000000d', 'retried', 'request-1', NULL, NULL, NULL, 'import', 'worker-ä', 'failed', 2, NULL, NULL, NULL, '2015-05-31 18:00:02+00', '2015-05-31 18:00:02+00', NULL, 0, NULL, NULL, '2015-06-30 18:00:02+00', true, 'Error', 'no disk', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014dae59-5680-7000-8000-000000000014', 'partial', 'request-0', NULL, NULL, NULL, 'import', 'worker-ä', 'partial_success', 1, NULL, '{"files": 3}', NULL, '2015-06-01 09:00:00+00', '2015-06-01 09:00:00+00', NULL, 1500, NULL, NULL, '2015-07-01 09:00:00+00', NULL, NULL, NULL, NULL, '["download", "größe prüfen"]', '["upload"]', 'upload', '{"": "an empty key", "deep": [[[[{"a": {"b": [{"c": null}]}}]]]], "empty": ["", [], {}, null], "truth": [true, false], "floats": [0.1, -1.5, 0.0000001, 123456.789], "control": "\u0001 \u001f   ", "escapes": "quote '' double \" backslash \\ newline \n tab \t percent %s colon :name", "größe": "ÄÖÜ ß 漢字 עברית 🙈 é", "integers": [0, -1, 2147483648, 9007199254740993, -9223372036854775808, 1180591620717411303424]}', NULL, NULL);
INSERT INTO public.job_history VALUES ('014daefe-1e24-7000-8000-00000000001e', 'payload-30', 'request-2', NULL, NULL, NULL, 'send_email', 'worker-ä', 'completed', 1, NULL, '{"": "an empty key", "deep": [[[[{"a": {"b": [{"c": null}]}}]]]], "empty": ["", [], {}, null], "truth": [true, false], "floats": [0.1, -1.5, 0.0000001, 123456.789], "control": "\u0001 \u001f   ", "escapes": "quote '' double \" backslash \\ newline \n tab \t percent %s colon :name", "größe": "ÄÖÜ ß 漢字 עברית 🙈 é", "integers": [0, -1, 2147483648, 9007199254740993, -9223372036854775808, 1180591620717411303424]}', NULL, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12, NULL, NULL, '2015-07-01 11:59:59.012346+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014daefe-1e24-7000-8000-00000000001f', 'payload-31', 'request-3', NULL, NULL, NULL, 'send_email', 'worker-ä', 'completed', 1, NULL, NULL, NULL, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12, NULL, NULL, '2015-07-01 11:59:59.012346+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014daefe-1e24-7000-8000-000000000020', 'payload-32', 'request-0', NULL, NULL, NULL, 'send_email', 'worker-ä', 'completed', 1, NULL, '0', NULL, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12, NULL, NULL, '2015-07-01 11:59:59.012346+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014daefe-1e24-7000-8000-000000000021', 'payload-33', 'request-1', NULL, NULL, NULL, 'send_email', 'worker-ä', 'completed', 1, NULL, '-1.5', NULL, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12, NULL, NULL, '2015-07-01 11:59:59.012346+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014daefe-1e24-7000-8000-000000000022', 'payload-34', 'request-2', NULL, NULL, NULL, 'send_email', 'worker-ä', 'completed', 1, NULL, '""', NULL, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12, NULL, NULL, '2015-07-01 11:59:59.012346+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014daefe-1e24-7000-8000-000000000023', 'payload-35', 'request-3', NULL, NULL, NULL, 'send_email', 'worker-ä', 'completed', 1, NULL, '"text"', NULL, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12, NULL, NULL, '2015-07-01 11:59:59.012346+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014daefe-1e24-7000-8000-000000000024', 'payload-36', 'request-0', NULL, NULL, NULL, 'send_email', 'worker-ä', 'completed', 1, NULL, 'false', NULL, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12, NULL, NULL, '2015-07-01 11:59:59.012346+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014daefe-1e24-7000-8000-000000000025', 'payload-37', 'request-1', NULL, NULL, NULL, 'send_email', 'worker-ä', 'completed', 1, NULL, '[]', NULL, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12, NULL, NULL, '2015-07-01 11:59:59.012346+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014daefe-1e24-7000-8000-000000000026', 'payload-38', 'request-2', NULL, NULL, NULL, 'send_email', 'worker-ä', 'completed', 1, NULL, '{}', NULL, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12, NULL, NULL, '2015-07-01 11:59:59.012346+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014daefe-1e24-7000-8000-000000000027', 'payload-39', 'request-3', NULL, NULL, NULL, 'send_email', 'worker-ä', 'completed', 1, NULL, '[null]', NULL, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12, NULL, NULL, '2015-07-01 11:59:59.012346+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014daefe-1e24-7000-8000-000000000028', 'payload-40', 'request-0', NULL, NULL, NULL, 'send_email', 'worker-ä', 'completed', 1, NULL, '{"a": null}', NULL, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12, NULL, NULL, '2015-07-01 11:59:59.012346+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014daefe-1e24-7000-8000-000000000032', 'üüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüü', 'request-2', NULL, NULL, NULL, 'üüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüü', 'üüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüü', 'completed', 1, NULL, NULL, NULL, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12, NULL, NULL, '2015-07-01 11:59:59.012346+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014daefe-1e24-7000-8000-000000000033', 'forever', 'request-3', NULL, NULL, NULL, 'keep', 'worker-ä', 'completed', 1, NULL, NULL, NULL, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014daefe-1e24-7000-8000-000000000034', 'result', 'request-1', '014daefe-2200-7000-8000-00000000003d', '4bf92f3577b34da6a3ce929d0e0e4736', '00f067aa0ba902b7', 'import', 'worker-ä', 'completed', 1, '{"empty": "", "tenant": "größe"}', '[1]', true, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.024346+00', NULL, 12, '2015-06-01 11:59:59.012346+00', 0.7, '2015-07-01 11:59:59.012346+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '{"": "an empty key", "deep": [[[[{"a": {"b": [{"c": null}]}}]]]], "empty": ["", [], {}, null], "truth": [true, false], "floats": [0.1, -1.5, 0.0000001, 123456.789], "control": "\u0001 \u001f   ", "escapes": "quote '' double \" backslash \\ newline \n tab \t percent %s colon :name", "größe": "ÄÖÜ ß 漢字 עברית 🙈 é", "integers": [0, -1, 2147483648, 9007199254740993, -9223372036854775808, 1180591620717411303424]}', 'ä
b');
INSERT INTO public.job_history VALUES ('014daefe-1e24-7000-8000-000000000035', 'cancelled', 'request-2', NULL, NULL, NULL, 'import', 'worker-ä', 'cancelled', 1, NULL, NULL, NULL, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 0, NULL, NULL, '2015-07-01 11:59:59.012346+00', NULL, NULL, 'größer', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014daefe-2200-7000-8000-00000000003c', 'running', 'request-0', NULL, NULL, NULL, 'send_email', 'worker-ä', 'started', 2, NULL, '["running"]', NULL, '2015-06-01 12:00:00+00', NULL, 250, NULL, NULL, NULL, '2015-07-01 12:00:00+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014daefe-2200-7000-8000-00000000003d', 'waiting', 'request-1', NULL, NULL, NULL, 'send_email', 'worker-ä', 'started', 2, NULL, '["waiting"]', NULL, '2015-06-01 12:00:00+00', NULL, 250, NULL, NULL, NULL, '2015-07-01 12:00:00+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);


--
-- Data for Name: job_history_alembic_version; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.job_history_alembic_version VALUES ('jobhistory_0012');


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
-- Name: ix_job_history_started_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_job_history_started_at ON public.job_history USING btree (started_at, id);


--
-- Name: ix_job_history_status; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_job_history_status ON public.job_history USING brin (status) WITH (pages_per_range='16', autosummarize='on');


--
-- Name: ix_job_history_task_identifier_started_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_job_history_task_identifier_started_at ON public.job_history USING btree (task_identifier, started_at NULLS FIRST, id);


--
-- Name: ix_job_history_worker_id_started_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_job_history_worker_id_started_at ON public.job_history USING btree (worker_id, started_at NULLS FIRST, id);


--
-- PostgreSQL database dump complete
--


