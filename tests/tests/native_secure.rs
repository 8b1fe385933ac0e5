//! Programs that have to show who they are: TLS, logins, rights and roles on real servers, and what is said when one of
//! them is wrong. Nothing that any program writes here shows a secret.

use std::sync::OnceLock;

use anyhow::{Context as _, Result, anyhow, ensure};
use tests::client::{History, Isolation, OutgoingRecord, Replay, expected_remains, unique_name};
use tests::native::{Login, RegistryLogin, SecureStack};
use tests::scenario::every_form;
use tests::scenario::formats::{AvroInput, avro_input};
use tests::scenario::{Job, end_cleanly, tail};
use tests::stack::{Program, ProgramSpec, RunningProgram, Stack as _, wait_for, wait_until};

const SHORT: &str = "crafted/incremental-then-straddling";

/// One stack for all tests here.
fn stack() -> Result<&'static SecureStack> {
    static STACK: OnceLock<std::result::Result<SecureStack, String>> = OnceLock::new();
    let started = STACK.get_or_init(|| SecureStack::start().map_err(|error| format!("{error:#}")));
    started.as_ref().map_err(|error| anyhow!("the secured stack did not start: {error}"))
}

/// One input in Avro for all tests here.
fn avro() -> Result<&'static AvroInput> {
    static INPUT: OnceLock<std::result::Result<AvroInput, String>> = OnceLock::new();
    let made = INPUT.get_or_init(|| stack().and_then(|stack| avro_input(stack)).map_err(|error| format!("{error:#}")));
    made.as_ref().map_err(|error| anyhow!("there is no input in Avro: {error}"))
}

fn grant(job: &Job<'_>) -> Result<()> {
    stack()?.grant(&job.source_topic, &job.topic_prefix, job.application_id(), &job.sink_group())
}

/// What the program has written, and what it shows of itself, has no secret in it.
fn ensure_no_secret(program: &dyn RunningProgram) -> Result<()> {
    stack()?.ensure_no_secret(&format!("the log of {}", program.name()), &program.log()?)
}

fn ensure_no_secret_over_http(program: &dyn RunningProgram) -> Result<()> {
    // One that is not ready says so with 503, and what it says then is looked at, too.
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    for path in ["metrics", "ready", "live", "startup"] {
        let url = format!("http://{}/{path}", program.http_address());
        let answer = wait_for(format!("an answer of {url}"), || Ok(agent.get(&url).call().ok()));
        let text = answer?.body_mut().read_to_string()?;
        // Some have nothing to say.
        stack()?.ensure_no_secret(&url, &format!("{path}: {text}"))?;
    }
    Ok(())
}

/// What a processor says that starts while the registry does not answer.
const WITHOUT_REGISTRY: &str = "does not answer now: going on without it";

/// Starts a program that must end by itself with this exit code, this code in its log, and these words.
fn ensure_refused(spec: &ProgramSpec, exit_code: i32, code: &str, words: &[&str]) -> Result<()> {
    let mut before = 0;
    let (program, exit, log) = loop {
        let mut program = stack()?.run(spec)?;
        let exit = program.wait_exit().with_context(|| tail(&program.log().unwrap_or_default()))?;
        let all = program.log()?;
        let log = all.get(before..).unwrap_or_default().to_owned();
        before = all.len();
        // A registry that does not answer in time refuses nobody: it is asked again by the next start.
        if !log.contains(WITHOUT_REGISTRY) {
            break (program, exit, log);
        }
    };
    ensure!(exit.code == Some(exit_code), "{} ended with {exit}:\n{}", program.name(), tail(&log));
    let line = log.lines().rfind(|line| line.contains(code));
    let line = line.with_context(|| format!("no {code} in the log of {}:\n{}", program.name(), tail(&log)))?;
    for word in words {
        ensure!(line.contains(word), "{word:?} is missing in: {line}");
    }
    ensure!(line.contains("remedy") || line.contains("To do"), "no remedy in: {line}");
    ensure_no_secret(program.as_ref())
}

#[test]
fn the_job_passes_over_tls_with_scram_least_roles_and_exactly_the_documented_rights() -> Result<()> {
    let history = "debezium-capture/history";
    let job = Job::new(stack()?, "secure")?;
    grant(&job)?;
    let expected = expected_remains(history)?;
    let mut processors = [job.start_processor(0)?, job.start_processor(1)?];
    let mut sinks = [stack()?.run(&job.sink(0)?.switch("--transaction-log"))?, job.start_sink(1)?];
    Replay::new(&job.kafka, &job.source_topic, &History::load(history)?)?.write_rest()?;
    job.wait_for(&expected, &mut processors)?;
    job.wait_for_target(&expected)?;
    for program in processors.iter().chain(&sinks) {
        ensure_no_secret_over_http(program.as_ref())?;
    }
    end_cleanly(&mut processors)?;
    end_cleanly(&mut sinks)?;
    processors.iter().chain(&sinks).try_for_each(|program| ensure_no_secret(program.as_ref()))
}

#[test]
fn every_other_login_brings_a_change_from_end_to_end() -> Result<()> {
    let expected = expected_remains(SHORT)?;
    for login in [Login::Plain, Login::OauthBearer, Login::Certificate] {
        let job = Job::new(stack()?, "login")?;
        let mut processors = [stack()?.run(&stack()?.log_in(job.processor(0), login)?)?];
        let mut sinks = [stack()?.run(&stack()?.log_in(job.sink(0)?, login)?)?];
        Replay::new(&job.kafka, &job.source_topic, &History::load(SHORT)?)?.write_rest()?;
        job.wait_for(&expected, &mut processors).with_context(|| format!("{login:?}"))?;
        job.wait_for_target(&expected)
            .with_context(|| format!("{login:?}: {}", tail(&sinks[0].log().unwrap_or_default())))?;
        end_cleanly(&mut processors)?;
        end_cleanly(&mut sinks)?;
        processors.iter().chain(&sinks).try_for_each(|program| ensure_no_secret(program.as_ref()))?;
    }
    Ok(())
}

#[test]
fn every_way_to_the_registry_brings_changes_in_avro_to_the_target_in_avro() -> Result<()> {
    let (stack, input) = (stack()?, avro()?);
    for login in [RegistryLogin::Tls, RegistryLogin::Basic, RegistryLogin::Token, RegistryLogin::Certificate] {
        let job = Job::named(stack, &unique_name("registry"), input.topic.clone())?;
        grant(&job)?;
        let spec = job.processor(0).flag("--output-format", "avro");
        let mut processors = [stack.run(&stack.log_in_at_registry(spec, login))?];
        let mut sinks = [job.start_sink(0)?];
        job.wait_for_target(&input.expected)
            .with_context(|| format!("{login:?}: {}", tail(&processors[0].log().unwrap_or_default())))?;
        ensure_no_secret_over_http(processors[0].as_ref())?;
        end_cleanly(&mut processors)?;
        end_cleanly(&mut sinks)?;
        ensure_no_secret(processors[0].as_ref())?;
        ensure!(!processors[0].log()?.contains(COMPATIBILITY_NOT_SET), "{login:?}: the subject is not guarded");
    }
    Ok(())
}

/// What a processor says when the registry will not be told which schemas go with ours.
const COMPATIBILITY_NOT_SET: &str = "SCHEMA_COMPATIBILITY_NOT_SET";

#[test]
#[ignore = "make faults"]
fn every_form_of_input_and_output_ends_equal_to_the_source_on_secured_servers() -> Result<()> {
    // It kills Connect: whoever else needs that has had it by then.
    avro()?;
    every_form::ends_equal_to_the_source(stack()?, "forms", &grant)
}

#[test]
fn a_registry_that_may_not_be_configured_is_used_all_the_same_and_told_of() -> Result<()> {
    let (stack, input) = (stack()?, avro()?);
    let job = Job::named(stack, &unique_name("restricted"), input.topic.clone())?;
    grant(&job)?;
    let spec = job.processor(0).flag("--output-format", "avro");
    let mut processors = [stack.run(&stack.log_in_at_registry(spec, RegistryLogin::Restricted))?];
    let mut sinks = [job.start_sink(0)?];
    job.wait_for_target(&input.expected)?;
    end_cleanly(&mut processors)?;
    end_cleanly(&mut sinks)?;
    let log = processors[0].log()?;
    let line = log.lines().find(|line| line.contains(COMPATIBILITY_NOT_SET)).context("nothing is said of it")?;
    ensure!(line.contains("403") && line.contains("FULL_TRANSITIVE"), "{line}");
    ensure_no_secret(processors[0].as_ref())
}

#[test]
fn a_registry_that_refuses_or_cannot_be_believed_at_the_start_ends_the_processor_with_code_and_remedy() -> Result<()> {
    let stack = stack()?;
    let job = Job::new(stack, "registry-refused")?;
    let spec = |name: &str, login: RegistryLogin, change: &dyn Fn(ProgramSpec) -> ProgramSpec| {
        let mut spec = change(job.processor(0));
        spec.name = format!("{}-{name}", spec.name);
        stack.log_in_at_registry(spec, login)
    };
    let as_it_is = |spec: ProgramSpec| spec;
    let without = |mut spec: ProgramSpec, flags: &[&str]| {
        spec.flags.retain(|(flag, _)| !flags.contains(&flag.as_str()));
        spec
    };
    let refused = |spec: &ProgramSpec, words: &[&str]| ensure_refused(spec, 3, "SCHEMA_REGISTRY_REFUSED", words);
    let untrusted = |spec: &ProgramSpec, words: &[&str]| ensure_refused(spec, 3, "SCHEMA_REGISTRY_TLS", words);
    let wrong = stack.file("wrong.password").display().to_string();

    let password = |spec: ProgramSpec| spec.flag("--schema-registry-password-file", &wrong);
    refused(&spec("password", RegistryLogin::Basic, &password), &["401"])?;
    let unasked = ["--schema-registry-user", "--schema-registry-password-file"];
    refused(&without(spec("nobody", RegistryLogin::Basic, &as_it_is), &unasked), &["401"])?;
    let token = |spec: ProgramSpec| spec.flag("--schema-registry-token-file", &wrong);
    refused(&spec("token", RegistryLogin::Token, &token), &["401"])?;
    let missing = ["--schema-registry-token-file"];
    refused(&without(spec("tokenless", RegistryLogin::Token, &as_it_is), &missing), &["401"])?;
    let identity = ["--schema-registry-certificate-file", "--schema-registry-key-file"];
    refused(&without(spec("anonymous", RegistryLogin::Certificate, &as_it_is), &identity), &["400", "certificate"])?;

    for login in [RegistryLogin::Tls, RegistryLogin::Basic] {
        // The authorities of the system vouch for none of ours.
        let authority = without(spec("authority", login, &as_it_is), &["--schema-registry-ca-file"]);
        untrusted(&authority, &["UnknownIssuer"])?;
    }
    let expired = stack.file("expired.crt").display().to_string();
    let outdated = |spec: ProgramSpec| spec.flag("--schema-registry-ca-file", &expired);
    untrusted(&spec("expired", RegistryLogin::Expired, &outdated), &["expired", "valid now"])?;
    let address = stack.registry_url(RegistryLogin::Tls).replace("localhost", "127.0.0.1");
    let host = |spec: ProgramSpec| spec.flag("--schema-registry-url", &address);
    untrusted(&spec("host", RegistryLogin::Tls, &host), &["not valid for name", "--schema-registry-url"])
}

#[test]
fn a_password_changed_at_the_registry_delays_until_the_file_has_it() -> Result<()> {
    let (stack, input) = (stack()?, avro()?);
    let job = Job::new(stack, "registry-password")?;
    grant(&job)?;
    let records = job.kafka.read(&input.topic, Isolation::ReadCommitted)?;
    let records: Vec<OutgoingRecord> = records
        .into_iter()
        .map(|record| OutgoingRecord {
            partition: record.partition,
            key: record.key,
            value: record.value,
            timestamp_ms: record.timestamp_ms,
            headers: record.headers,
        })
        .collect();
    let file = stack.file("own-registry.password");
    std::fs::copy(stack.file("registry.password"), &file)?;
    let spec = job.processor(0).flag("--schema-registry-password-file", file.display());
    let mut processors = [stack.run(&stack.log_in_at_registry(spec, RegistryLogin::Changing))?];
    wait_until("the processor to be ready", || {
        let url = format!("http://{}/ready", processors[0].http_address());
        Ok(ureq::get(&url).call().is_ok())
    })?;
    stack.change_registry_password("pw-of-the-registry-Nc3-new")?;
    job.kafka.write(&job.source_topic, &records)?;
    wait_until("the refusal to be told", || Ok(processors[0].log()?.contains("SCHEMA_REGISTRY_REFUSED")))?;
    ensure!(processors[0].exit()?.is_none(), "a refusal later is no reason to end:\n{}", processors[0].log()?);
    std::fs::write(&file, "pw-of-the-registry-Nc3-new\n")?;
    job.wait_for(&input.expected, &mut processors)?;
    end_cleanly(&mut processors)?;
    ensure_no_secret(processors[0].as_ref())
}

#[test]
fn brokers_that_refuse_or_cannot_be_believed_end_a_program_with_code_and_remedy() -> Result<()> {
    let stack = stack()?;
    let job = Job::new(stack, "refused")?;
    let wrong = stack.file("wrong.password").display().to_string();
    let authority = stack.file("ca.crt").display().to_string();
    let in_the_clear = |spec: ProgramSpec| spec.flag("--kafka-security-protocol", "ssl");
    for program in [job.processor(0), job.sink(0)?] {
        let scram = |name: &str, change: &dyn Fn(ProgramSpec) -> ProgramSpec, login: Login| {
            let mut spec = change(program.clone());
            spec.name = format!("{}-{name}", spec.name);
            stack.log_in(spec, login)
        };
        let password = |spec: ProgramSpec| spec.flag("--kafka-password-file", &wrong);
        let spec = scram("password", &password, Login::Scram)?;
        ensure_refused(&spec, 3, "KAFKA_NOT_AUTHENTICATED", &["SCRAM-SHA-512"])?;
        let spec = scram("secret", &password, Login::OauthBearer)?;
        ensure_refused(&spec, 3, "KAFKA_NOT_AUTHENTICATED", &["token endpoint", "invalid_client"])?;

        // The servers of the system vouch for none of ours.
        let mut spec = scram("authority", &|spec| spec, Login::Scram)?;
        spec.flags.retain(|(flag, _)| flag != "--kafka-ca-file");
        ensure_refused(&spec, 3, "KAFKA_TLS", &["certificate verify failed"])?;
        let address = stack.bootstrap_servers(Login::Scram)?.replace("localhost", "127.0.0.1");
        let spec = scram("host", &|spec| spec.flag("--bootstrap-servers", &address), Login::Scram)?;
        ensure_refused(&spec, 3, "KAFKA_TLS", &["certificate verify failed", "host names"])?;
        let mut spec = in_the_clear(program.clone())
            .flag("--bootstrap-servers", stack.bootstrap_servers(Login::Certificate)?)
            .flag("--kafka-ca-file", &authority);
        spec.name = format!("{}-anonymous", spec.name);
        ensure_refused(&spec, 3, "KAFKA_TLS", &["certificate"])?;
    }
    Ok(())
}

#[test]
fn a_target_that_refuses_or_cannot_be_believed_ends_the_sink_with_code_and_remedy() -> Result<()> {
    let stack = stack()?;
    let job = Job::new(stack, "target")?;
    let spec = |name: &str| -> Result<ProgramSpec> {
        let mut spec = stack.log_in(job.sink(0)?, Login::Plain)?;
        spec.name = format!("{}-{name}", spec.name);
        Ok(spec)
    };
    let wrong = stack.file("wrong.password");
    let password = spec("password")?.flag("--database-password-file", wrong.display());
    ensure_refused(&password, 3, "SINK_DATABASE_NOT_AUTHENTICATED", &["sink"])?;

    let superuser = stack.addresses(tests::stack::Viewpoint::Host).target_database_url.context("no target")?;
    let at = |host: &str, parameters: &str| superuser.replace("127.0.0.1", host) + parameters;
    let with_url = |name: &str, url: String| -> Result<ProgramSpec> {
        let mut spec = spec(name)?;
        spec.flags.retain(|(flag, _)| flag != "--database-url");
        Ok(spec.flag("--database-url", url))
    };
    let authority = stack.file("ca.crt");
    let unknown = with_url("authority", at("localhost", "?sslmode=verify-full"))?;
    ensure_refused(&unknown, 3, "SINK_DATABASE_TLS", &["certificate"])?;
    let trusted = format!("?sslmode=verify-full&sslrootcert={}", authority.display());
    let host = with_url("host", at("127.0.0.1", &trusted))?;
    ensure_refused(&host, 3, "SINK_DATABASE_TLS", &["certificate"])?;

    // A role that may connect and nothing else.
    tests::client::Sql::connect(&superuser)?.execute("CREATE ROLE stranger LOGIN PASSWORD 'pw-of-the-role-Ty8'")?;
    let stranger = at("localhost", &trusted).replace("postgres:postgres@", "stranger@");
    let stranger = with_url("stranger", stranger)?;
    ensure_refused(&stranger, 3, "SINK_DATABASE_NOT_AUTHORIZED", &["permission denied", "target-roles.sql"])
}

#[test]
fn a_password_changed_at_the_brokers_ends_running_programs_and_with_the_new_one_they_go_on() -> Result<()> {
    let stack = stack()?;
    let job = Job::new(stack, "changing")?;
    let (old, new) = ("pw-of-changing-Rd1", "pw-of-changing-Rd1-new");
    stack.change_scram_password("changing", old)?;
    let file = stack.file("changing.password");
    std::fs::write(&file, old)?;
    let log_in =
        |spec: ProgramSpec| spec.flag("--kafka-user", "changing").flag("--kafka-password-file", file.display());
    let specs = [log_in(job.processor(0)), log_in(job.sink(0)?)];
    let mut programs = [stack.run(&specs[0])?, stack.run(&specs[1])?];
    for program in &programs {
        wait_until(format!("{} to be ready", program.name()), || {
            Ok(ureq::get(&format!("http://{}/ready", program.http_address())).call().is_ok())
        })?;
    }
    // Brokers ask again who it is, every few seconds.
    stack.change_scram_password("changing", new)?;
    for program in &mut programs {
        let exit = program.wait_exit().with_context(|| tail(&program.log().unwrap_or_default()))?;
        let log = program.log()?;
        ensure!(exit.code == Some(3), "{} ended with {exit}:\n{}", program.name(), tail(&log));
        ensure!(log.contains("KAFKA_NOT_AUTHENTICATED") && !log.contains(old), "{}:\n{}", program.name(), tail(&log));
    }
    std::fs::write(&file, new)?;
    Replay::new(&job.kafka, &job.source_topic, &History::load(SHORT)?)?.write_rest()?;
    let expected = expected_remains(SHORT)?;
    let mut programs = [stack.run(&specs[0])?, stack.run(&specs[1])?];
    job.wait_for(&expected, &mut programs[..1])?;
    job.wait_for_target(&expected)?;
    end_cleanly(&mut programs)
}

/// One right, as `kafka-acls` takes it, and the words that name it when it is missing.
struct Right {
    program: Program,
    resource: Vec<String>,
    operation: &'static str,
    words: Vec<String>,
}

fn rights(job: &Job<'_>) -> Vec<Right> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let right = |program, resource: &[&str], operation, named: &[&str]| Right {
        program,
        resource: words(resource),
        operation,
        words: words(named),
    };
    let (source, prefix) = (job.source_topic.as_str(), format!("{}.", job.topic_prefix));
    let own = ["--topic", &prefix, "--resource-pattern-type", "prefixed"];
    let topic = |suffix: &str| job.topic(suffix);
    let (movements, deltas, control) = (topic("movements"), topic("deltas"), topic("control"));
    let transactions = format!("{}-", job.application_id());
    let (processor, sink) = (Program::Processor, Program::Sink);
    vec![
        // First, while there are no topics yet.
        right(processor, &own, "Create", &["creating topic", &prefix]),
        right(processor, &["--topic", source], "Read", &["topic", source]),
        right(processor, &["--topic", source], "DescribeConfigs", &["DescribeConfigs on topic", source]),
        right(processor, &own, "Read", &["Read on topic", &topic("transactions"), &movements, &deltas, &control]),
        right(processor, &own, "Write", &["Write on topic", &topic("dead-letters")]),
        right(processor, &own, "DescribeConfigs", &["DescribeConfigs on topic", &control]),
        right(processor, &["--topic", &movements], "Delete", &["Delete on topic", &movements]),
        right(processor, &["--group", job.application_id()], "Read", &["Read on the consumer group"]),
        right(
            processor,
            &["--transactional-id", &transactions, "--resource-pattern-type", "prefixed"],
            "Write",
            &["Write on the transactional ids"],
        ),
        right(sink, &["--topic", &deltas], "Read", &["Read on topic", &deltas]),
        right(sink, &["--topic", &control], "Read", &["Read on topic", &control]),
        right(
            sink,
            &["--group", &job.sink_group(), "--resource-pattern-type", "prefixed"],
            "Read",
            &["Read on the consumer group"],
        ),
    ]
}

#[test]
fn with_any_one_right_missing_the_program_names_it_and_ends() -> Result<()> {
    let stack = stack()?;
    let job = Job::new(stack, "rights")?;
    grant(&job)?;
    for (number, right) in rights(&job).iter().enumerate() {
        let principal = format!("User:{}", right.program);
        let change = |verb: &[&str], principal_flag: &str| {
            let mut words: Vec<&str> = verb.to_vec();
            words.extend([principal_flag, &principal, "--operation", right.operation]);
            words.extend(right.resource.iter().map(String::as_str));
            stack.acls(&words)
        };
        change(&["--remove", "--force"], "--allow-principal")?;
        let mut spec = match right.program {
            Program::Processor => job.processor(0),
            Program::Sink => job.sink(0)?,
        };
        spec.name = format!("{}-{number}", spec.name);
        let words: Vec<&str> = right.words.iter().map(String::as_str).collect();
        ensure_refused(&spec, 3, "KAFKA_NOT_AUTHORIZED", &words)
            .with_context(|| format!("without {} on {:?}", right.operation, right.resource))?;
        change(&["--add"], "--allow-principal")?;
        if number == 0 {
            let mut first = [job.start_processor(0)?];
            wait_until("the topics of the job", || Ok(job.kafka.topics()?.contains(&job.topic("dead-letters"))))?;
            end_cleanly(&mut first)?;
        }
    }
    Ok(())
}

#[test]
fn help_shows_no_secret_of_a_variable() -> Result<()> {
    // The search itself finds one.
    ensure!(stack()?.ensure_no_secret("a text", "user=sink password=pw-of-the-sink-Zx4").is_err());
    let job = Job::new(stack()?, "help")?;
    let variable = |spec: ProgramSpec, name: &str| spec.env(name, "pw-of-the-processor-Kq7").switch("--help");
    let sink = variable(job.sink(0)?, "SINK_KAFKA_PASSWORD")
        .env("SINK_DATABASE_URL", "postgres://sink:pw-of-the-role-Ty8@localhost/remains");
    for spec in [variable(job.processor(0), "PROCESSOR_KAFKA_PASSWORD"), sink] {
        let mut program = stack()?.run(&spec)?;
        ensure!(program.wait_exit()?.is_clean());
        ensure!(program.log()?.contains("_KAFKA_PASSWORD"), "help does not tell the variable");
        ensure_no_secret(program.as_ref())?;
    }
    Ok(())
}
