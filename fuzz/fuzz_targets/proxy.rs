//! Any bytes, as a header of the PROXY protocol: no panic, and never more to read than the limit.
#![no_main]

use broker::{PROXY_PREFIX_BYTES, ProxyPrefix};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((prefix, rest)) = data.split_first_chunk::<PROXY_PREFIX_BYTES>() else { return };
    let Ok(prefix) = ProxyPrefix::read(prefix) else { return };
    assert!(prefix.rest <= 4 * 1024);
    let rest = &rest[..rest.len().min(prefix.rest)];
    if let Ok(Some(client)) = prefix.client(rest) {
        assert!(rest.len() >= if client.is_ipv4() { 12 } else { 36 });
    }
});
