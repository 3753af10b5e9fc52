//! A notation for packets, and just enough reading of MQTT 5 properties to assert on them.
//!
//! Written from the specifications and independent of `mqtt-protocol`, so that a mistake there cannot hide here.

/// Turns notation into bytes.
///
/// | notation | bytes |
/// |---|---|
/// | `10 0a ff`, `0005` | hexadecimal |
/// | `'text'` | two bytes of length, then the text (a UTF-8 Encoded String) |
/// | `` `text` `` | the text alone |
/// | `[ … ]` | a Variable Byte Integer with the length of what is inside, then what is inside |
///
/// So a CONNECT of MQTT 5 reads `10 ['MQTT' 05 02 003c [] 'client']`.
#[track_caller]
#[must_use]
pub fn bytes(notation: &str) -> Vec<u8> {
    let mut blocks: Vec<Vec<u8>> = vec![Vec::new()];
    let mut rest = notation.chars();
    while let Some(character) = rest.next() {
        match character {
            ' ' | '\n' => {}
            '[' => blocks.push(Vec::new()),
            ']' => {
                let inside = blocks.pop().unwrap();
                let around = blocks.last_mut().unwrap_or_else(|| panic!("one `]` too many in {notation}"));
                around.extend(variable_byte_integer(inside.len()));
                around.extend(inside);
            }
            quote @ ('\'' | '`') => {
                let text: String = rest.by_ref().take_while(|&next| next != quote).collect();
                let block = blocks.last_mut().unwrap();
                if quote == '\'' {
                    let length = u16::try_from(text.len()).expect("a string of at most 65,535 bytes");
                    block.extend(length.to_be_bytes());
                }
                block.extend(text.bytes());
            }
            high => {
                let low = rest.next().unwrap_or_else(|| panic!("half a byte at the end of {notation}"));
                let digit = |character: char| {
                    character
                        .to_digit(16)
                        .unwrap_or_else(|| panic!("`{character}` is not notation: {notation}"))
                };
                let byte = u8::try_from(digit(high) * 16 + digit(low)).unwrap();
                blocks.last_mut().unwrap().push(byte);
            }
        }
    }
    assert_eq!(blocks.len(), 1, "a `[` is not closed in {notation}");
    blocks.pop().unwrap()
}

/// Encodes a Variable Byte Integer (MQTT 5.0 §1.5.5; Remaining Length in MQTT 3.1.1 §2.2.3).
#[must_use]
pub fn variable_byte_integer(mut value: usize) -> Vec<u8> {
    let mut encoded = Vec::new();
    loop {
        let digit = u8::try_from(value % 128).unwrap();
        value /= 128;
        encoded.push(if value > 0 { digit | 0x80 } else { digit });
        if value == 0 {
            return encoded;
        }
    }
}

/// Decodes a Variable Byte Integer at the start of `input`: its value and how many bytes it takes.
///
/// None when the input ends before it does.
#[track_caller]
#[must_use]
pub fn read_variable_byte_integer(input: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (index, byte) in input.iter().enumerate() {
        assert!(index < 4, "a Variable Byte Integer of more than four bytes: {input:02x?}");
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}

/// The properties of one MQTT 5 packet, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties(Vec<(u8, Vec<u8>)>);

impl Properties {
    /// Reads the property length and the properties at the start of `input`; also returns how many bytes they take.
    #[track_caller]
    #[must_use]
    pub fn read(input: &[u8]) -> (Self, usize) {
        let (length, prefix) = read_variable_byte_integer(input).expect("a property length");
        let end = prefix + length;
        let mut at = prefix;
        let mut properties = Vec::new();
        while at < end {
            let identifier = input[at];
            let value = &input[at + 1..end];
            let size = value_size(identifier, value);
            properties.push((identifier, value[..size].to_vec()));
            at += 1 + size;
        }
        assert_eq!(at, end, "a property reaches past the property length: {input:02x?}");
        (Self(properties), end)
    }

    /// The encoded values of all properties with this identifier, in their order.
    pub fn all(&self, identifier: u8) -> impl Iterator<Item = &[u8]> {
        self.0.iter().filter(move |(id, _)| *id == identifier).map(|(_, value)| value.as_slice())
    }

    /// The encoded value of the only property with this identifier.
    #[track_caller]
    #[must_use]
    pub fn one(&self, identifier: u8) -> Option<&[u8]> {
        let mut values = self.all(identifier);
        let first = values.next();
        assert_eq!(values.next(), None, "property {identifier:02x} twice");
        first
    }

    /// The property as a number: a byte, two or four bytes, or a Variable Byte Integer.
    #[track_caller]
    #[must_use]
    pub fn number(&self, identifier: u8) -> Option<u32> {
        let value = self.one(identifier)?;
        if identifier == 0x0b {
            return Some(u32::try_from(read_variable_byte_integer(value).unwrap().0).unwrap());
        }
        Some(value.iter().fold(0, |number, &byte| number << 8 | u32::from(byte)))
    }

    /// The property as text, without its length prefix.
    #[track_caller]
    #[must_use]
    pub fn text(&self, identifier: u8) -> Option<String> {
        Some(String::from_utf8(self.one(identifier)?[2..].to_vec()).unwrap())
    }
}

/// How many bytes the value of a property takes (MQTT 5.0, table 2-4).
#[track_caller]
fn value_size(identifier: u8, value: &[u8]) -> usize {
    let string = |at: usize| 2 + usize::from(u16::from_be_bytes([value[at], value[at + 1]]));
    match identifier {
        0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2a => 1,
        0x13 | 0x21 | 0x22 | 0x23 => 2,
        0x02 | 0x11 | 0x18 | 0x27 => 4,
        0x0b => read_variable_byte_integer(value).expect("a Variable Byte Integer").1,
        0x03 | 0x08 | 0x09 | 0x12 | 0x15 | 0x16 | 0x1a | 0x1c | 0x1f => string(0),
        0x26 => string(0) + string(string(0)),
        other => panic!("there is no property {other:02x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notation_becomes_bytes() {
        assert_eq!(bytes("c0 00"), [0xc0, 0]);
        assert_eq!(bytes("30 ['a/b' `hi`]"), *b"\x30\x07\x00\x03a/bhi");
        assert_eq!(
            bytes("10 ['MQTT' 05 02 003c [] 'é']"),
            *b"\x10\x0f\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x02\xc3\xa9"
        );
        assert_eq!(bytes(&format!("[`{}`]", "x".repeat(128)))[..2], [0x80, 0x01]);
    }

    #[test]
    fn variable_byte_integers_are_those_of_the_specification() {
        // MQTT 5.0, table 1-1: the ends of each range.
        for (value, encoded) in [
            (0, &[0x00][..]),
            (127, &[0x7f]),
            (128, &[0x80, 0x01]),
            (16_383, &[0xff, 0x7f]),
            (16_384, &[0x80, 0x80, 0x01]),
            (2_097_152, &[0x80, 0x80, 0x80, 0x01]),
            (268_435_455, &[0xff, 0xff, 0xff, 0x7f]),
        ] {
            assert_eq!(variable_byte_integer(value), encoded);
            assert_eq!(read_variable_byte_integer(encoded), Some((value, encoded.len())));
        }
        assert_eq!(read_variable_byte_integer(&[0x80]), None);
    }

    #[test]
    fn properties_are_read_in_order() {
        let (properties, size) =
            Properties::read(&bytes("[11 0000000a 26 'a' 'b' 26 'a' 'c' 0b 8001 21 0014] ff"));
        assert_eq!(size, 26);
        assert_eq!(properties.number(0x11), Some(10));
        assert_eq!(properties.number(0x21), Some(20));
        assert_eq!(properties.number(0x0b), Some(128));
        assert_eq!(properties.all(0x26).collect::<Vec<_>>(), [bytes("'a' 'b'"), bytes("'a' 'c'")]);
        assert_eq!(properties.one(0x12), None);
    }
}
