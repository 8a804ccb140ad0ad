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
    task_identifier character varying(255) NOT NULL,
    worker_id character varying(255) NOT NULL,
    status character varying(32) NOT NULL,
    attempt_number integer NOT NULL,
    payload jsonb,
    started_at timestamp with time zone NOT NULL,
    completed_at timestamp with time zone,
    queue_time_ms bigint,
    execution_time_ms bigint,
    error_type character varying(255),
    error_message text,
    error_stack text,
    completed_steps jsonb,
    failed_steps jsonb,
    retry_from_step text,
    partial_results jsonb,
    expires_at timestamp with time zone,
    CONSTRAINT ck_job_history_status CHECK (((status)::text = ANY ((ARRAY['started'::character varying, 'completed'::character varying, 'failed'::character varying, 'partial_success'::character varying])::text[])))
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

INSERT INTO public.job_history VALUES ('014c7a00-9200-7000-8000-000000000001', 'expired', 'request-1', 'send_email', 'worker-ä', 'completed', 1, NULL, '2015-04-02 12:00:00+00', '2015-04-02 12:00:00+00', NULL, 12, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2015-05-02 12:00:00+00');
INSERT INTO public.job_history VALUES ('014c7a00-9200-7000-8000-000000000002', 'expired-and-lost', 'request-2', 'send_email', 'worker-ä', 'started', 1, NULL, '2015-04-02 12:00:00+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2015-05-02 12:00:00+00');
INSERT INTO public.job_history VALUES ('014d7b7e-8a00-7000-8000-000000000004', 'lost', 'request-0', 'import', 'dead', 'started', 1, '{"file": "a.csv"}', '2015-05-22 12:00:00+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2015-06-21 12:00:00+00');
INSERT INTO public.job_history VALUES ('014d7b7e-8a00-7000-8000-000000000003', 'reaped', 'request-3', 'import', 'reaped', 'failed', 1, NULL, '2015-05-22 12:00:00+00', '2015-05-23 12:00:00+00', NULL, NULL, 'jobhistory.WorkerLost', 'no outcome since it started at 2015-05-22T12:00:00Z; its worker is taken for lost', NULL, NULL, NULL, NULL, NULL, '2015-06-21 12:00:00+00');
INSERT INTO public.job_history VALUES ('014daab3-8000-7000-8000-00000000000a', 'failed-10', 'request-2', 'rechnung_drucken', 'worker-ä', 'failed', 10, '{"nr": 10}', '2015-05-31 16:00:00+00', '2015-05-31 16:00:02+00', NULL, 2000, 'ZeroDivisionError', 'division by zero', 'Traceback (most recent call last):
  File "app/reports.py", line 1, in <module>
ZeroDivisionError: division by zero
', NULL, NULL, NULL, NULL, '2015-06-30 16:00:00+00');
INSERT INTO public.job_history VALUES ('014daaea-6e80-7000-8000-00000000000b', 'failed-11', 'request-3', 'rechnung_drucken', 'worker-ä', 'failed', 11, '{"nr": 11}', '2015-05-31 17:00:00+00', '2015-05-31 17:00:02+00', NULL, 2000, 'Error', 'Zeitüberschreitung: 30 s', NULL, NULL, NULL, NULL, NULL, '2015-06-30 17:00:00+00');
INSERT INTO public.job_history VALUES ('014dab21-5d00-7000-8000-00000000000c', 'failed-12', 'request-0', 'rechnung_drucken', 'worker-ä', 'failed', 12, '{"nr": 12}', '2015-05-31 18:00:00+00', '2015-05-31 18:00:02+00', NULL, 2000, 'ZeroDivisionError', 'division by zero', 'Traceback (most recent call last):
  File "app/reports.py", line 1, in <module>
ZeroDivisionError: division by zero
', NULL, NULL, NULL, NULL, '2015-06-30 18:00:00+00');
INSERT INTO public.job_history VALUES ('014dae59-5680-7000-8000-000000000014', 'partial', 'request-0', 'import', 'worker-ä', 'partial_success', 1, '{"files": 3}', '2015-06-01 09:00:00+00', '2015-06-01 09:00:00+00', NULL, 1500, NULL, NULL, NULL, '["download", "größe prüfen"]', '["upload"]', 'upload', '{"": "an empty key", "deep": [[[[{"a": {"b": [{"c": null}]}}]]]], "empty": ["", [], {}, null], "truth": [true, false], "floats": [0.1, -1.5, 0.0000001, 123456.789], "control": "\u0001 \u001f   ", "escapes": "quote '' double \" backslash \\ newline \n tab \t percent %s colon :name", "größe": "ÄÖÜ ß 漢字 עברית 🙈 é", "integers": [0, -1, 2147483648, 9007199254740993, -9223372036854775808, 1180591620717411303424]}', '2015-07-01 09:00:00+00');
INSERT INTO public.job_history VALUES ('014daefe-1e24-7000-8000-00000000001e', 'payload-30', 'request-2', 'send_email', 'worker-ä', 'completed', 1, '{"": "an empty key", "deep": [[[[{"a": {"b": [{"c": null}]}}]]]], "empty": ["", [], {}, null], "truth": [true, false], "floats": [0.1, -1.5, 0.0000001, 123456.789], "control": "\u0001 \u001f   ", "escapes": "quote '' double \" backslash \\ newline \n tab \t percent %s colon :name", "größe": "ÄÖÜ ß 漢字 עברית 🙈 é", "integers": [0, -1, 2147483648, 9007199254740993, -9223372036854775808, 1180591620717411303424]}', '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2015-07-01 11:59:59.012346+00');
INSERT INTO public.job_history VALUES ('014daefe-1e24-7000-8000-00000000001f', 'payload-31', 'request-3', 'send_email', 'worker-ä', 'completed', 1, NULL, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2015-07-01 11:59:59.012346+00');
INSERT INTO public.job_history VALUES ('014daefe-1e24-7000-8000-000000000020', 'payload-32', 'request-0', 'send_email', 'worker-ä', 'completed', 1, '0', '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2015-07-01 11:59:59.012346+00');
INSERT INTO public.job_history VALUES ('014daefe-1e24-7000-8000-000000000021', 'payload-33', 'request-1', 'send_email', 'worker-ä', 'completed', 1, '-1.5', '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2015-07-01 11:59:59.012346+00');
INSERT INTO public.job_history VALUES ('014daefe-1e24-7000-8000-000000000022', 'payload-34', 'request-2', 'send_email', 'worker-ä', 'completed', 1, '""', '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2015-07-01 11:59:59.012346+00');
INSERT INTO public.job_history VALUES ('014daefe-1e24-7000-8000-000000000023', 'payload-35', 'request-3', 'send_email', 'worker-ä', 'completed', 1, '"text"', '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2015-07-01 11:59:59.012346+00');
INSERT INTO public.job_history VALUES ('014daefe-1e24-7000-8000-000000000024', 'payload-36', 'request-0', 'send_email', 'worker-ä', 'completed', 1, 'false', '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2015-07-01 11:59:59.012346+00');
INSERT INTO public.job_history VALUES ('014daefe-1e24-7000-8000-000000000025', 'payload-37', 'request-1', 'send_email', 'worker-ä', 'completed', 1, '[]', '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2015-07-01 11:59:59.012346+00');
INSERT INTO public.job_history VALUES ('014daefe-1e24-7000-8000-000000000026', 'payload-38', 'request-2', 'send_email', 'worker-ä', 'completed', 1, '{}', '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2015-07-01 11:59:59.012346+00');
INSERT INTO public.job_history VALUES ('014daefe-1e24-7000-8000-000000000027', 'payload-39', 'request-3', 'send_email', 'worker-ä', 'completed', 1, '[null]', '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2015-07-01 11:59:59.012346+00');
INSERT INTO public.job_history VALUES ('014daefe-1e24-7000-8000-000000000028', 'payload-40', 'request-0', 'send_email', 'worker-ä', 'completed', 1, '{"a": null}', '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2015-07-01 11:59:59.012346+00');
INSERT INTO public.job_history VALUES ('014daefe-1e24-7000-8000-000000000032', 'üüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüü', 'request-2', 'üüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüü', 'üüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüü', 'completed', 1, NULL, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2015-07-01 11:59:59.012346+00');
INSERT INTO public.job_history VALUES ('014daefe-1e24-7000-8000-000000000033', 'forever', 'request-3', 'keep', 'worker-ä', 'completed', 1, NULL, '2015-06-01 11:59:59.012346+00', '2015-06-01 11:59:59.012346+00', NULL, 12, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.job_history VALUES ('014daefe-2200-7000-8000-00000000003c', 'running', 'request-0', 'send_email', 'worker-ä', 'started', 2, '["running"]', '2015-06-01 12:00:00+00', NULL, 250, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2015-07-01 12:00:00+00');
INSERT INTO public.job_history VALUES ('014daefe-2200-7000-8000-00000000003d', 'waiting', 'request-1', 'send_email', 'worker-ä', 'started', 2, '["waiting"]', '2015-06-01 12:00:00+00', NULL, 250, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2015-07-01 12:00:00+00');


--
-- Data for Name: job_history_alembic_version; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.job_history_alembic_version VALUES ('jobhistory_0002');


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

CREATE INDEX ix_job_history_correlation_id_started_at ON public.job_history USING btree (correlation_id, started_at NULLS FIRST);


--
-- Name: ix_job_history_error_type_started_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_job_history_error_type_started_at ON public.job_history USING btree (error_type, started_at NULLS FIRST) WHERE (error_type IS NOT NULL);


--
-- Name: ix_job_history_expires_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_job_history_expires_at ON public.job_history USING btree (expires_at);


--
-- Name: ix_job_history_failed_started_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_job_history_failed_started_at ON public.job_history USING btree (started_at) WHERE (error_type IS NOT NULL);


--
-- Name: ix_job_history_failed_task_identifier_started_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_job_history_failed_task_identifier_started_at ON public.job_history USING btree (task_identifier, started_at NULLS FIRST) WHERE (error_type IS NOT NULL);


--
-- Name: ix_job_history_job_id_started_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_job_history_job_id_started_at ON public.job_history USING btree (job_id, started_at NULLS FIRST);


--
-- Name: ix_job_history_partial_started_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_job_history_partial_started_at ON public.job_history USING btree (started_at) WHERE (failed_steps IS NOT NULL);


--
-- Name: ix_job_history_partial_task_identifier_started_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_job_history_partial_task_identifier_started_at ON public.job_history USING btree (task_identifier, started_at NULLS FIRST) WHERE (failed_steps IS NOT NULL);


--
-- Name: ix_job_history_started_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_job_history_started_at ON public.job_history USING btree (started_at);


--
-- Name: ix_job_history_task_identifier_started_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_job_history_task_identifier_started_at ON public.job_history USING btree (task_identifier, started_at NULLS FIRST);


--
-- Name: ix_job_history_worker_id_started_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_job_history_worker_id_started_at ON public.job_history USING btree (worker_id, started_at NULLS FIRST);


--
-- PostgreSQL database dump complete
--


