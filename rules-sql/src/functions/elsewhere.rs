//! Functions that other products have and this dialect has not: what serves instead, or that nothing does.
//!
//! Their authors bring rules along. A near name out of our own table would lead them astray (`nth` is not `sinh`), so
//! each is answered with the way things are written here.

/// What is known of a function that is missing.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Elsewhere {
    /// Unknown here; this does the same.
    Instead(&'static str),
    /// Left out on purpose, with what can be done, or nothing.
    Refused(&'static str),
}

const ONE_MESSAGE: &str = "a rule sees one message at a time and keeps nothing between them";
const NO_STORE: &str = "rules keep no store";
const NO_SERVICE: &str = "it needs a service that is not there";

/// Names in lower case, by name.
const ELSEWHERE: &[(&str, Elsewhere)] = {
    use Elsewhere::{Instead, Refused};
    &[
        ("acc_avg", Refused(ONE_MESSAGE)),
        ("acc_count", Refused(ONE_MESSAGE)),
        ("acc_max", Refused(ONE_MESSAGE)),
        ("acc_min", Refused(ONE_MESSAGE)),
        ("acc_sum", Refused(ONE_MESSAGE)),
        ("acosh", Instead("write ln(x + sqrt(x * x - 1))")),
        ("ai_completion", Refused(NO_SERVICE)),
        ("array_cardinality", Instead("use array_length(array)")),
        ("array_concat", Instead("use concat(array, array)")),
        ("array_contains", Instead("write x IN array")),
        ("array_join", Instead("use join_to_string(separator, array)")),
        ("ascii", Refused("")),
        ("asinh", Instead("write ln(x + sqrt(x * x + 1))")),
        ("atanh", Instead("write ln((1 + x) / (1 - x)) / 2")),
        ("avg", Refused(ONE_MESSAGE)),
        ("avro_decode", Refused(NO_SERVICE)),
        ("avro_encode", Refused(NO_SERVICE)),
        ("aws_lambda", Refused("an action can call over HTTP")),
        ("bin2hexstr", Instead("use base64_encode(value)")),
        ("bitsl", Instead("write x * power(2, n)")),
        ("bitsr", Instead("write x div power(2, n)")),
        ("bool", Instead("write cast(x AS Boolean)")),
        ("boolean", Instead("write cast(x AS Boolean)")),
        ("bytesize", Instead("use numbytes(text)")),
        ("cardinality", Instead("use array_length(array)")),
        ("changed_col", Refused(ONE_MESSAGE)),
        ("changed_cols", Refused(ONE_MESSAGE)),
        ("char_length", Instead("use length(text)")),
        ("charindex", Instead("use indexof(text, part)")),
        ("clientip", Instead("use sourceip()")),
        ("coalesce_ne", Instead("write CASE WHEN x <> '' THEN x ELSE y END")),
        ("collect", Refused(ONE_MESSAGE)),
        ("concat_ws", Instead("use join_to_string(separator, array)")),
        ("contains", Instead("write x IN array; in text, indexof(text, part) >= 0")),
        ("contains_topic", Refused("write topic() =~ 'filter'")),
        ("contains_topic_match", Refused("write topic() =~ 'filter'")),
        ("convert_tz", Instead("use parse_time(pattern, milliseconds, zone)")),
        ("cot", Instead("write 1 / tan(x)")),
        ("count", Refused(ONE_MESSAGE)),
        ("countwindow", Refused(ONE_MESSAGE)),
        ("cur_date", Instead("use parse_time('yyyy-MM-dd', timestamp())")),
        ("cur_time", Instead("use parse_time('HH:mm:ss', timestamp())")),
        ("cur_timestamp", Instead("use timestamp(), or now_rfc3339()")),
        ("current_date", Instead("use parse_time('yyyy-MM-dd', timestamp())")),
        ("current_time", Instead("use parse_time('HH:mm:ss', timestamp())")),
        ("current_timestamp", Instead("use timestamp(), or now_rfc3339()")),
        ("date_diff", Instead("subtract milliseconds: time_to_epoch(text, pattern) - timestamp()")),
        ("date_format", Instead("use parse_time(pattern, milliseconds)")),
        ("date_to_unix_ts", Instead("use time_to_epoch(text, pattern)")),
        ("datediff", Instead("subtract milliseconds: time_to_epoch(text, pattern) - timestamp()")),
        ("day", Instead("use parse_time('dd', milliseconds)")),
        ("decimal", Instead("write cast(x AS Decimal)")),
        ("deduplicate", Refused(ONE_MESSAGE)),
        ("degrees", Instead("write x * 180 / acos(-1)")),
        ("double", Instead("write cast(x AS Decimal)")),
        ("element_at", Instead("write x[n], from 0, or x['key']")),
        ("event_time", Instead("use timestamp()")),
        ("extract", Instead("use parse_time(pattern, milliseconds)")),
        ("find", Instead("use substring(text, indexof(text, part))")),
        ("first", Instead("write x[0]")),
        ("flag", Instead("for flag('retain') use retain()")),
        ("flags", Instead("for flags.retain use retain()")),
        ("float", Instead("write cast(x AS Decimal)")),
        ("float2str", Instead("write cast(trunc(x, places) AS String)")),
        ("fmod", Instead("use mod(a, b)")),
        ("format_date", Instead("use parse_time(pattern, milliseconds)")),
        ("from_unixtime", Instead("use unix_ts_to_rfc3339(time)")),
        ("get_dynamodb", Refused("")),
        ("get_registry_data", Refused("")),
        ("get_secret", Refused("action settings can name a secret of the configuration")),
        ("get_thing_shadow", Refused("")),
        ("getenv", Refused("put the value into the rule")),
        ("had_changed", Refused(ONE_MESSAGE)),
        ("hash", Instead("use the function named for the hash, such as sha256(text)")),
        ("hexstr2bin", Instead("send base64 and use base64_decode(text)")),
        ("hoppingwindow", Refused(ONE_MESSAGE)),
        ("hour", Instead("use parse_time('HH', milliseconds)")),
        ("if", Instead("write CASE WHEN condition THEN x ELSE y END")),
        ("if_null", Instead("use coalesce(x, y)")),
        ("ifnull", Instead("use coalesce(x, y)")),
        ("iif", Instead("write CASE WHEN condition THEN x ELSE y END")),
        ("instr", Instead("use indexof(text, part)")),
        ("int", Instead("write cast(x AS Int)")),
        ("integer", Instead("write cast(x AS Int)")),
        ("is_nan", Instead("write isUndefined(x): a result that is no number is Undefined")),
        ("isnan", Instead("write isUndefined(x): a result that is no number is Undefined")),
        ("item", Instead("write x[n], from 0, or x['key']")),
        ("join_to_sql_values_string", Refused("use join_to_string(separator, array)")),
        ("json_path_exists", Instead("write NOT isUndefined(x.key)")),
        ("json_path_query", Instead("write a path: x.key[0]")),
        ("json_path_query_first", Instead("write a path: x.key[0]")),
        ("kv_store_del", Refused(NO_STORE)),
        ("kv_store_get", Refused(NO_STORE)),
        ("kv_store_put", Refused(NO_STORE)),
        ("lag", Refused(ONE_MESSAGE)),
        ("last", Instead("write x[-1]")),
        ("last_value", Refused(ONE_MESSAGE)),
        ("latest", Refused(ONE_MESSAGE)),
        ("lcase", Instead("use lower(text)")),
        ("left", Instead("use substring(text, 0, count)")),
        ("len", Instead("use length(text), or array_length(array)")),
        ("local_time", Instead("use timestamp(), or now_rfc3339()")),
        ("locate", Instead("use indexof(text, part)")),
        ("machinelearning_predict", Refused("")),
        ("map_get", Instead("use get(x, 'key'), or write a path: x.key")),
        ("map_new", Instead("write {}")),
        ("map_put", Instead("write the object out: {'key': x}")),
        ("map_to_redis_hset_args", Refused("")),
        ("max", Refused(ONE_MESSAGE)),
        ("md2", Refused("md2 is broken; use sha256")),
        ("median", Refused(ONE_MESSAGE)),
        ("merge_agg", Refused(ONE_MESSAGE)),
        ("meta", Instead("use topic(), clientid() and their like")),
        ("mget", Instead("use get(x, 'key')")),
        ("min", Refused(ONE_MESSAGE)),
        ("minute", Instead("use parse_time('mm', milliseconds)")),
        ("mongo_date", Refused("use unix_ts_to_rfc3339(time)")),
        ("month", Instead("use parse_time('MM', milliseconds)")),
        ("mput", Instead("write the object out: {'key': x}")),
        ("mqtt", Instead("for mqtt(topic) use topic()")),
        ("msgid", Instead("use traceid()")),
        ("now", Instead("use timestamp(), or now_rfc3339()")),
        ("nth", Instead("write x[n], from 0")),
        ("nullif", Instead("write CASE WHEN x = y THEN NULL ELSE x END")),
        ("number", Instead("write cast(x AS Decimal)")),
        ("numeric", Instead("write cast(x AS Decimal)")),
        ("nvl", Instead("use coalesce(x, y)")),
        ("object", Instead("write the object out: {'key': x}")),
        ("object_construct", Instead("write the object out: {'key': x}")),
        ("parse_json", Instead("use json_decode(text)")),
        ("peerhost", Instead("use sourceip()")),
        ("percentile_cont", Refused(ONE_MESSAGE)),
        ("percentile_disc", Refused(ONE_MESSAGE)),
        ("pi", Instead("write acos(-1)")),
        ("position", Instead("use indexof(text, part)")),
        ("pow", Instead("use power(base, exponent)")),
        ("proc_dict_del", Refused(NO_STORE)),
        ("proc_dict_get", Refused(NO_STORE)),
        ("proc_dict_put", Refused(NO_STORE)),
        ("radians", Instead("write x * acos(-1) / 180")),
        ("regex_extract", Instead("use regexp_substr(text, pattern)")),
        ("regex_replace", Instead("use regexp_replace(text, pattern, replacement)")),
        ("right", Instead("use substring(text, length(text) - count)")),
        ("rm_prefix", Instead("use regexp_replace(text, '^prefix', '')")),
        ("row_number", Refused(ONE_MESSAGE)),
        ("schema_check", Refused(NO_SERVICE)),
        ("schema_decode", Refused(NO_SERVICE)),
        ("schema_decode_tagged", Refused(NO_SERVICE)),
        ("schema_encode", Refused(NO_SERVICE)),
        ("schema_encode_and_tag", Refused(NO_SERVICE)),
        ("second", Instead("use parse_time('ss', milliseconds)")),
        ("sessionwindow", Refused(ONE_MESSAGE)),
        ("sha", Instead("use sha1(text)")),
        ("slidingwindow", Refused(ONE_MESSAGE)),
        ("sparkplug_decode", Refused("payloads of Sparkplug B are not read")),
        ("sparkplug_encode", Refused("payloads of Sparkplug B are not read")),
        ("spb_decode", Refused("payloads of Sparkplug B are not read")),
        ("spb_encode", Refused("payloads of Sparkplug B are not read")),
        ("spb_zip_kvs", Refused("payloads of Sparkplug B are not read")),
        ("split_value", Instead("use split(text, separator)[n], from 0")),
        ("sprintf", Refused("join text with ||")),
        ("statewindow", Refused(ONE_MESSAGE)),
        ("stddev", Refused(ONE_MESSAGE)),
        ("stddevs", Refused(ONE_MESSAGE)),
        ("str", Instead("write cast(x AS String)")),
        ("str_utf8", Instead("write cast(x AS String)")),
        ("string", Instead("write cast(x AS String)")),
        ("strpos", Instead("use indexof(text, part)")),
        ("sublist", Instead("pick elements by x[n]")),
        ("sum", Refused(ONE_MESSAGE)),
        ("term_decode", Refused("")),
        ("term_encode", Refused("")),
        ("to_bool", Instead("write cast(x AS Boolean)")),
        ("to_double", Instead("write cast(x AS Decimal)")),
        ("to_int", Instead("write cast(x AS Int)")),
        ("to_json", Instead("use json_encode(value)")),
        ("to_number", Instead("write cast(x AS Decimal)")),
        ("to_string", Instead("write cast(x AS String)")),
        ("tobool", Instead("write cast(x AS Boolean)")),
        ("todouble", Instead("write cast(x AS Decimal)")),
        ("toint", Instead("write cast(x AS Int)")),
        ("tokens", Instead("use split(text, separator)")),
        ("tonumber", Instead("write cast(x AS Decimal)")),
        ("tostring", Instead("write cast(x AS String)")),
        ("tstamp", Instead("use timestamp()")),
        ("tumblingwindow", Refused(ONE_MESSAGE)),
        ("ucase", Instead("use upper(text)")),
        ("uuid", Instead("use newuuid()")),
        ("var", Refused(ONE_MESSAGE)),
        ("vars", Refused(ONE_MESSAGE)),
        ("window_end", Refused(ONE_MESSAGE)),
        ("window_start", Refused(ONE_MESSAGE)),
        ("year", Instead("use parse_time('yyyy', milliseconds)")),
    ]
};

/// What is known of a missing function, by its name in lower case.
pub(crate) fn elsewhere(name: &str) -> Option<Elsewhere> {
    ELSEWHERE.iter().find(|(known, _)| *known == name).map(|(_, elsewhere)| *elsewhere)
}

#[cfg(test)]
mod tests {
    use super::{ELSEWHERE, Elsewhere};
    use crate::functions::names;
    use crate::limits::{Dialect, Limits};
    use crate::rule::compile;

    #[test]
    fn names_are_in_order() {
        for pair in ELSEWHERE.windows(2) {
            assert!(pair[0].0 < pair[1].0, "{} before {}", pair[0].0, pair[1].0);
        }
    }

    #[test]
    fn each_is_answered_with_its_own_words() {
        for (name, elsewhere) in ELSEWHERE {
            let sql = format!("SELECT {}(a) AS x FROM 't'", name.to_uppercase());
            let error = compile(&sql, Dialect::Aws, &Limits::default()).unwrap_err();
            let (code, hint) = match elsewhere {
                Elsewhere::Instead(hint) => ("R0202", *hint),
                Elsewhere::Refused(hint) => ("R0204", *hint),
            };
            assert_eq!((error.code, error.hint.as_deref().unwrap_or("")), (code, hint), "{name}");
        }
    }

    /// A hint that names a function must name one of ours.
    #[test]
    fn what_is_called_instead_is_there() {
        let call = regex::Regex::new(r"([a-z_0-9A-Z]+)\(").unwrap();
        for (name, elsewhere) in ELSEWHERE {
            let (Elsewhere::Instead(hint) | Elsewhere::Refused(hint)) = elsewhere;
            for found in call.captures_iter(hint) {
                let called = &found[1];
                let ours = called == "cast" || names().any(|ours| ours == called);
                let own = ["flag", "mqtt"].contains(&called) && called == *name;
                assert!(ours || own, "{name}: {hint}");
            }
        }
    }
}
