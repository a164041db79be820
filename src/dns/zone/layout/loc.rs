//! Places on Earth (RFC 1876).

use std::fmt::Write as _;

use super::Tokens;

/// Appends a location.
pub(super) fn encode(tokens: &mut Tokens<'_>, out: &mut Vec<u8>) -> Result<(), &'static str> {
    let latitude = angle(tokens, ["N", "S"], 90)?;
    let longitude = angle(tokens, ["E", "W"], 180)?;
    let text = tokens.plain()?;
    let (below, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let height = metres(text)?;
    let altitude = if below {
        SEA_LEVEL.checked_sub(height)
    } else {
        SEA_LEVEL.checked_add(height)
    };
    let altitude = altitude.and_then(|altitude| u32::try_from(altitude).ok());
    let altitude = altitude.ok_or("not between -100000.00m and 42849672.95m")?;
    let mut sizes = [0x12, 0x16, 0x13]; // 1 m, 10 km, 10 m.
    for size in &mut sizes {
        if tokens.more() {
            *size = power(metres(tokens.plain()?)?)?;
        }
    }
    out.push(0);
    out.extend(sizes);
    for value in [latitude, longitude, altitude] {
        out.extend(value.to_be_bytes());
    }
    Ok(())
}

/// The text of a location.
pub(super) fn print(wire: &[u8; 16], out: &mut String) -> Option<()> {
    let [version, size, across, up, rest @ ..] = wire;
    let number = |at: usize| {
        u32::from_be_bytes([
            rest[at * 4],
            rest[at * 4 + 1],
            rest[at * 4 + 2],
            rest[at * 4 + 3],
        ])
    };
    let (latitude, longitude, altitude) = (number(0), number(1), u64::from(number(2)));
    if *version != 0
        || latitude.abs_diff(MIDDLE) > 90 * DEGREE
        || longitude.abs_diff(MIDDLE) > 180 * DEGREE
    {
        return None;
    }
    for (value, [over, under]) in [(latitude, ['N', 'S']), (longitude, ['E', 'W'])] {
        let angle = value.abs_diff(MIDDLE);
        let _ = write!(
            out,
            "{} {} {}.{:03} {} ",
            angle / DEGREE,
            angle / 60_000 % 60,
            angle / 1_000 % 60,
            angle % 1_000,
            if value < MIDDLE { under } else { over },
        ); // A String takes everything, here and below.
    }
    let sign = if altitude < SEA_LEVEL { "-" } else { "" };
    let height = altitude.abs_diff(SEA_LEVEL);
    let _ = write!(out, "{sign}{}.{:02}m", height / 100, height % 100);
    for size in [size, across, up] {
        let (digit, exponent) = (size >> 4, size & 15);
        if digit > 9 || exponent > 9 {
            return None;
        }
        let centimetres = u64::from(digit) * 10_u64.pow(u32::from(exponent));
        let _ = match centimetres % 100 {
            0 => write!(out, " {}m", centimetres / 100),
            part => write!(out, " {}.{part:02}m", centimetres / 100),
        };
    }
    Some(())
}

/// Thousandths of a second of arc, 2^31 being the equator or the prime meridian.
fn angle(tokens: &mut Tokens<'_>, sides: [&str; 2], degrees_max: u32) -> Result<u32, &'static str> {
    let mut value = 0;
    let mut text = tokens.plain()?;
    for (at, unit) in [DEGREE, 60_000, 1_000].into_iter().enumerate() {
        if at > 0 && sides.iter().any(|side| side.eq_ignore_ascii_case(text)) {
            break;
        }
        let most = if at == 0 { degrees_max } else { 59 };
        let decimals = if at == 2 { 3 } else { 0 };
        let part = decimal(text, decimals)?;
        let scale = 10_u64.pow(decimals);
        if part / scale > u64::from(most) {
            return Err("too large");
        }
        value += part * u64::from(unit) / scale;
        text = tokens.plain()?;
    }
    if value > u64::from(degrees_max * DEGREE) {
        return Err("too large");
    }
    let value = value as u32; // Checked above.
    if text.eq_ignore_ascii_case(sides[0]) {
        Ok(MIDDLE + value)
    } else if text.eq_ignore_ascii_case(sides[1]) {
        Ok(MIDDLE - value)
    } else if sides[0] == "N" {
        Err("neither N nor S")
    } else {
        Err("neither E nor W")
    }
}

/// Centimetres of `12.34m`; the unit may be missing.
fn metres(text: &str) -> Result<u64, &'static str> {
    decimal(text.strip_suffix(['m', 'M']).unwrap_or(text), 2)
}

/// A number with at most so many decimals, times ten to the power of that.
fn decimal(text: &str, decimals: u32) -> Result<u64, &'static str> {
    let (whole, part) = match text.split_once('.') {
        Some((whole, part)) if decimals > 0 => (whole, part),
        _ => (text, ""),
    };
    if whole.is_empty() || whole.len() > 9 || part.len() > decimals as usize {
        return Err("not a number of this form");
    }
    let mut value = 0;
    for byte in whole.bytes().chain(part.bytes()) {
        if !byte.is_ascii_digit() {
            return Err("not a number of this form");
        }
        value = value * 10 + u64::from(byte - b'0');
    }
    Ok(value * 10_u64.pow(decimals - part.len() as u32)) // At most 3.
}

/// Centimetres as a digit and a power of ten, cut down to that.
fn power(centimetres: u64) -> Result<u8, &'static str> {
    let (mut digit, mut exponent) = (centimetres, 0);
    while digit > 9 {
        digit /= 10;
        exponent += 1;
    }
    if exponent > 9 {
        return Err("more than 90000000.00m");
    }
    Ok((digit as u8) << 4 | exponent) // One digit.
}

/// Thousandths of a second in a degree.
const DEGREE: u32 = 3_600_000;
/// The equator, and the prime meridian.
const MIDDLE: u32 = 1 << 31;
/// Centimetres from the lowest altitude.
const SEA_LEVEL: u64 = 10_000_000;
